"""Distributions built, installed by pip into a clean venv, used, and uninstalled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from typing import TYPE_CHECKING, Any

import pytest
from distributions import build_wheels
from documents import REPOSITORY, named_plugin, third_party_plugin
from journal_hosts import wait_until_gone

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

#: Takes a lock, says so, and waits to be killed.
HOLD_LOCK = """
import sys
from probate import ProcessManager
has_reaper, path = sys.argv[1] == "reaper", sys.argv[2]
with ProcessManager.builder().with_journal(path + ".state", reaper=has_reaper).build() as manager:
    process = manager.create_process("lessee")
    manager.orchestrator["locks"].manager.take(process.pid, path)
    print("held", flush=True)
    sys.stdin.read()
"""

SWEEP = """
import sys
from probate import ResourceOrchestrator
from probate.settlement import sweep
for account in sweep(ResourceOrchestrator().discover(), sys.argv[1] + ".state"):
    for row in account.rows:
        print(f"{row.outcome}|{row.kind}|{row.text}|{row.tries}")
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
            # What is used is compiled then, once: most of it never is.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        )

    def pip(self, *arguments: str | Path) -> None:
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", self.bin / "python", "-q"]
        env = {**os.environ, "PIP_NO_COMPILE": "1"}
        subprocess.run([*pip, *arguments], check=True, timeout=200, env=env)

    def plugins(self) -> dict[str, dict[str, Any]]:
        records = json.loads(self.run("python", "-c", RECORDS).stdout)
        return {record["kind"]: record for record in records}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """A venv with the core and one plugin, built as wheels; nothing else of ours."""
    wheels = build_wheels(
        tmp_path_factory.mktemp("wheels"), REPOSITORY / "core", REPOSITORY / "plugins" / "sockets"
    )
    clean = Venv(tmp_path_factory.mktemp("venv"))
    clean.pip("install", "-c", REPOSITORY / "constraints.txt", *wheels)
    return clean


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
    clean.pip("install", *build_wheels(tmp_path / "wheels", project))

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


def killed(clean: Venv, has_reaper: str, lock: Path) -> None:
    """Have a host take a lock, and kill it."""
    argv: list[str | Path] = [clean.bin / "python", "-c", HOLD_LOCK, has_reaper, lock]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"held\n"
        assert lock.exists()
        host.kill()


def test_a_third_party_s_named_things_are_given_back_when_their_host_is_killed(
    clean: Venv, tmp_path: Path
) -> None:
    """As CONTRIBUTING.md shows it: by the reaper; by a sweep, once the plugin is there to ask."""
    lock = tmp_path / "lock"
    project = tmp_path / "project"
    project.mkdir()
    wheels = build_wheels(tmp_path / "wheels", named_plugin(project))
    clean.pip("install", *wheels)
    try:
        killed(clean, "reaper", lock)
        wait_until_gone(lock)

        killed(clean, "none", lock)
        clean.pip("uninstall", "-y", "acme-locks")
        missing = clean.run("python", "-c", SWEEP, lock).stdout.splitlines()[-1]
        clean.pip("install", *wheels)
        there = clean.run("python", "-c", SWEEP, lock).stdout
    finally:
        clean.pip("uninstall", "-y", "acme-locks")

    assert missing == "refused|locks|kind 'locks' is not installed here|1"
    assert there == "released|locks||2\n"
    assert not lock.exists()
