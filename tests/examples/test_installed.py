"""The kinds of examples/plugins as distributions: who needs them finds them, once installed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from distributions import build_wheels
from documents import REPOSITORY
from journal_hosts import JournalHost, wait_while
from postgres_server import needs_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Each kind, what makes one thing of it, and what there has to be for that.
KINDS: Final = [
    pytest.param(
        "postgres",
        "create_database(owner.pid)",
        id="postgres",
        marks=needs_postgres,
    ),
    pytest.param(
        "tmux",
        'create_session(owner.pid, "sleep", "300")',
        id="tmux",
        marks=pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux"),
    ),
]

HOST = """
manager = build(reaper={reaper})
owner = manager.create_process("owner")
say(manager.orchestrator["{kind}"].manager.{make}.name)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which both are installed: a wheel is what it unpacks to (PEP 427)."""
    folder = tmp_path_factory.mktemp("site")
    for wheel in build_wheels(folder, *sorted(REPOSITORY.glob("examples/plugins/*"))):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
    return folder


@pytest.fixture
def surroundings(
    site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], bool]]:
    """Where programs find both kinds, and a server of each; tells whether that has a thing."""
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("PROBATE_STATE", str(tmp_path))
    kind = request.node.callspec.params["kind"]
    with contextlib.ExitStack() as stack:
        if kind == "postgres":
            conninfo = request.getfixturevalue("conninfo")
            for name, value in psycopg.conninfo.conninfo_to_dict(conninfo).items():
                variable = {"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}")
                monkeypatch.setenv(variable, str(value))
            session = stack.enter_context(psycopg.connect(conninfo, autocommit=True))
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            yield lambda name: bool(session.execute(query, [name]).fetchone())
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="probate-tmux-"))
            monkeypatch.setenv("TMUX_TMPDIR", folder)
            monkeypatch.setenv("SHELL", "/bin/sh")
            tmux = ["tmux", "-L", "probate"]
            stack.callback(subprocess.run, [*tmux, "kill-server"], capture_output=True, check=False)
            has = [*tmux, "has-session", "-t"]
            yield (
                lambda name: (
                    subprocess.run([*has, f"={name}"], capture_output=True, check=False).returncode
                    == 0
                )
            )


def probate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "probate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_they_are_listed_in_their_place(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are installed, which the environment of all other tests is not."""
    monkeypatch.setenv("PYTHONPATH", str(site))
    found = {each["kind"]: each for each in json.loads(probate("plugins", "--json").stdout)}

    for kind, priority in (("postgres", 12), ("tmux", 95)):
        told = {"distribution": f"probate-{kind}", "priority": priority, "status": "loaded"}
        assert told.items() <= found[kind].items()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("kind", "make"), KINDS)
def test_a_killed_host_leaves_nothing(
    kind: str,
    make: str,
    surroundings: Callable[[str], bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its reaper, or the command, gives it back: each finds the kind, and the kind its server."""
    with JournalHost(HOST.format(kind=kind, make=make, reaper=True), tmp_path) as host:
        reaped = host.line()
        assert surroundings(reaped)
    wait_while(lambda: surroundings(reaped))
    with JournalHost(HOST.format(kind=kind, make=make, reaper=False), tmp_path) as host:
        swept = host.line()
    assert surroundings(swept)
    # Whoever sweeps may be in other surroundings; what it takes is in the row.
    with monkeypatch.context() as patch:
        for name in [each for each in os.environ if each.startswith(("PG", "TMUX"))]:
            patch.delenv(name)
        ran = probate("sweep", "--json")
    rows = [
        (row["kind"], row["outcome"])
        for host_account in json.loads(ran.stdout)["hosts"]
        for row in host_account["rows"]
    ]

    assert (ran.returncode, ran.stderr) == (0, "")
    assert not surroundings(swept)
    assert (kind, "released") in rows
    assert {outcome for _, outcome in rows} == {"released"}
