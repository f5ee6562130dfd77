"""Distributions built, installed by pip into a clean venv, used, and uninstalled."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from typing import TYPE_CHECKING, Any

import pytest
from documents import REPOSITORY, third_party_plugin

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

USE_SOCKETS = """
from probate import ProcessManager
with ProcessManager.builder().build() as manager:
    assert manager.orchestrator.registered_types() == ["sockets"]
    process = manager.create_process("only")
    manager.orchestrator["sockets"].manager.listen_tcp(process.pid, ("127.0.0.1", 0))
    print(manager.terminate_process(process.pid))
"""

USE_LEASES = """
import pathlib, sys
from acme_leases import take
from probate import ProcessManager
with ProcessManager.builder().build() as manager:
    orchestrator = manager.orchestrator
    orchestrator.plugin_manager.trace.root.setwriter(sys.stdout.write)
    orchestrator.plugin_manager.enable_tracing()
    process = manager.create_process("lessee")
    path = take(orchestrator["leases"], process.pid, pathlib.Path(sys.argv[1]))
    orchestrator["sockets"].manager.bind_udp(process.pid, ("127.0.0.1", 0))
    assert path.exists()
    print(orchestrator.registered_types())
    print(manager.terminate_process(process.pid))
    assert not path.exists()
"""


RECORDS = """
import json
from probate import ResourceOrchestrator
records = ResourceOrchestrator().discover().records
print(json.dumps([record.model_dump(mode="json") for record in records]))
"""


class Venv:
    """A virtual environment, and what runs in it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.bin = folder / "bin"

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        arguments: list[str | Path] = [self.bin / command[0], *command[1:]]
        return subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            timeout=120,
            check=check,
        )

    def pip(self, *arguments: str | Path) -> None:
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", self.bin / "python", "-q"]
        subprocess.run([*pip, *arguments], check=True, timeout=200)

    def plugins(self) -> dict[str, dict[str, Any]]:
        records = json.loads(self.run("python", "-c", RECORDS).stdout)
        return {record["kind"]: record for record in records}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """A venv with the core and one plugin, built as wheels; nothing else of ours."""
    wheels = tmp_path_factory.mktemp("wheels")
    build(wheels, REPOSITORY / "core", REPOSITORY / "plugins" / "sockets")
    clean = Venv(tmp_path_factory.mktemp("venv"))
    clean.pip("install", "-c", REPOSITORY / "constraints.txt", *sorted(wheels.glob("*.whl")))
    return clean


def build(wheels: Path, *projects: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", wheels, *projects], check=True, timeout=120)


def test_with_the_core_and_one_plugin_everything_works_with_that_kind_alone(clean: Venv) -> None:
    """No other kind is needed, and no extra."""
    ran = clean.run("python", "-W", "error", "-c", USE_SOCKETS)

    assert ran.stdout == "PID 1 cleanup: 1 resources freed, 0 bytes freed, 0 errors\n"


def test_each_plugin_is_recorded(clean: Venv) -> None:
    """By the metadata of what pip has installed."""
    assert clean.plugins()["sockets"] == {
        "kind": "sockets",
        "distribution": "probate-sockets",
        "version": "0.1.0",
        "priority": 10,
        "status": "loaded",
        "reason": "",
    }


@pytest.mark.parametrize("command", [("probate",), ("python", "-m", "probate")])
@pytest.mark.parametrize("arguments", [("demo",), ("plugins", "--json"), ()])
def test_without_the_extra_the_command_says_what_is_missing(
    clean: Venv, command: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    """One line, and the way out; exit 2."""
    ran = clean.run(*command, *arguments, check=False)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "pip install 'probate[cli]'" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_the_readmes_plugin_comes_and_goes_with_pip(clean: Venv, tmp_path: Path) -> None:
    """Built outside the repository and installed, it is discovered, ordered, cleaned and traced."""
    project = third_party_plugin(tmp_path)
    build(tmp_path / "wheels", project)
    clean.pip("install", *(tmp_path / "wheels").glob("*.whl"))

    record = clean.plugins()["leases"]
    used = clean.run("python", "-W", "error", "-c", USE_LEASES, tmp_path / "lease")
    clean.pip("uninstall", "-y", "acme-leases")

    assert (record["distribution"], record["priority"], record["status"]) == (
        "acme-leases",
        15,
        "loaded",
    )
    assert "['leases', 'sockets']" in used.stdout
    assert "cleanup: 2 resources freed, 0 bytes freed, 0 errors" in used.stdout
    assert "  cleanup [hook]" in used.stdout
    assert "leases" not in clean.plugins()
