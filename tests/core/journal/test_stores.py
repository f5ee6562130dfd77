"""Stores that are damaged, newer, of others or of another boot: nothing is lost or done wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb
import pytest
from journal_hosts import JournalHost

from probate import ProcessManager, ResourceOrchestrator
from probate.errors import JournalNotArmedError
from probate.journal.folders import HEADER
from probate.journal.store import Store
from probate.settlement import HostState, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate.settlement import HostAccount

HOLDS = """
with_reaper = sys.argv[2] == "reaper"
manager = build(reaper=with_reaper)
memory = manager.orchestrator["memory"].manager
process = manager.create_process("worker")
for name in sys.argv[3:]:
    memory.create_shared_memory(process.pid, name, size=4096)
say("made")
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def names() -> Iterator[list[str]]:
    found = [f"probate-test-{secrets.token_hex(8)}" for _ in range(3)]
    yield found
    for name in found:
        shm(name).unlink(missing_ok=True)


def shm(name: str) -> Path:
    return Path("/dev/shm") / name


#: Has all rows in the store itself, as those of things that live long.
WITHOUT_LOGS = """
from probate.journal import ahead
ahead._FULL = 0
"""


def dead_host(state: Path, names: list[str], *, with_logs: bool = True) -> Path:
    """The folder of a host that has died, without a reaper, with segments of these names."""
    program = HOLDS if with_logs else WITHOUT_LOGS + HOLDS
    with JournalHost(program, state, "none", *names) as host:
        assert host.line() == "made"
        return host.folder


def swept(state: Path) -> list[HostAccount]:
    return sweep(ResourceOrchestrator().discover(only=["memory"]), str(state))


def edit(folder: Path, **changes: Any) -> None:
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps(header | changes))


def test_a_store_that_was_cut_off_is_set_aside(state: Path, names: list[str]) -> None:
    """SIGBUS in whoever maps it: a child reads it, and dies of it alone; the things stay."""
    folder = dead_host(state, names, with_logs=False)
    os.truncate(folder / "data.mdb", 8192)

    (account,) = swept(state)

    assert account.state is HostState.UNREADABLE
    assert "damaged" in account.text
    assert "moved to" in account.text
    assert (folder.parent / f"set-aside-{folder.name}").exists()
    assert all(shm(name).exists() for name in names)
    assert swept(state) == []


@pytest.mark.parametrize("behind", ["rows", "the last row"])
def test_a_log_that_was_cut_off_is_set_aside(state: Path, names: list[str], behind: str) -> None:
    """What was deleted in it may be in the store still, and its name be another's."""
    folder = dead_host(state, names)
    log = (folder / "ahead").read_bytes()
    os.truncate(folder / "ahead", log.rindex(b"confirmed") + (4096 if behind == "rows" else 0))

    (account,) = swept(state)

    assert account.state is HostState.UNREADABLE
    assert "cut off" in account.text
    assert all(shm(name).exists() for name in names)


def test_a_log_that_is_damaged_is_set_aside(state: Path, names: list[str]) -> None:
    """Nobody knows what it has told of: the things stay."""
    folder = dead_host(state, names)
    log = (folder / "ahead").read_bytes()
    at = log.index(b"confirmed")
    (folder / "ahead").write_bytes(log[:at] + b"other" + log[at + 5 :])

    (account,) = swept(state)

    assert account.state is HostState.UNREADABLE
    assert "is damaged" in account.text
    assert all(shm(name).exists() for name in names)


def test_a_store_that_there_is_no_memory_to_read_stays(
    state: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not damaged; the next sweep may have more (`ulimit -v`)."""
    folder = dead_host(state, names)
    with monkeypatch.context() as short:

        def refuse(*_: object, **__: object) -> None:
            raise lmdb.MemoryError(f"{folder}: Cannot allocate memory")

        short.setattr(lmdb, "open", refuse)
        (account,) = swept(state)

    assert account.state is HostState.UNREADABLE
    assert "Cannot allocate memory" in account.text
    assert folder.exists()

    (account,) = swept(state)

    assert [row.outcome for row in account.rows] == ["released"] * len(names)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0" * 100])
def test_a_header_that_cannot_be_read_is_set_aside(
    state: Path, names: list[str], content: bytes
) -> None:
    """Whatever is in it; what it tells of is left alone."""
    folder = dead_host(state, names)
    (folder / HEADER).write_bytes(content)

    (account,) = swept(state)

    assert account.state is HostState.UNREADABLE
    assert all(shm(name).exists() for name in names)


def test_a_newer_store_is_left_to_a_newer_version(state: Path, names: list[str]) -> None:
    """Nothing is moved or removed: whoever wrote it can still sweep it."""
    folder = dead_host(state, names)
    edit(folder, readable_since=99)

    (account,) = swept(state)

    assert account.state is HostState.UNREADABLE
    assert "newer version" in account.text
    assert folder.exists()
    assert all(shm(name).exists() for name in names)


def test_a_host_of_another_pid_namespace_is_left_alone(state: Path, names: list[str]) -> None:
    """Where no handle tells whether it is dead, a pid of elsewhere tells nothing."""
    folder = dead_host(state, names)
    edit(folder, handle=None, pid_namespace=1)

    (account,) = swept(state)

    assert account.state is HostState.UNKNOWN
    assert all(shm(name).exists() for name in names)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"handle": None}, id="without handles of processes"),
        pytest.param({"handle": None, "pid": os.getpid()}, id="its pid is another's by now"),
        pytest.param({"boot": "another"}, id="another boot"),
    ],
)
def test_the_dead_are_told_without_handles(
    state: Path, names: list[str], changes: dict[str, Any]
) -> None:
    """By pid and start time, before Linux 6.14; and nobody outlives a boot."""
    folder = dead_host(state, names)
    edit(folder, **changes)

    (account,) = swept(state)

    assert account.state is HostState.SETTLED
    assert not any(shm(name).exists() for name in names)


def test_sweeps_at_a_time_settle_each_thing_once(state: Path, names: list[str]) -> None:
    """One has the lock; the others say so, or find nothing any more."""
    for name in names:
        dead_host(state, [name])
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        answers = pool.map(outcomes, [state] * 3, chunksize=1)

    assert sorted(outcome for answer in answers for outcome in answer) == ["released"] * 3
    assert not any(shm(name).exists() for name in names)


def outcomes(state: Path) -> list[str]:
    """What one sweep has given back."""
    return [str(row.outcome) for account in swept(state) for row in account.rows]


def test_a_folder_that_others_may_enter_is_refused(state: Path) -> None:
    """Before anything is made, with the way out."""
    state.mkdir(0o755)
    builder = ProcessManager.builder().with_journal(state)
    with builder.build() as manager:
        process = manager.create_process("worker")
        with pytest.raises(JournalNotArmedError, match="chmod 700"):
            manager.orchestrator["memory"].manager.create_shared_memory(process.pid, size=1)

        assert not manager.orchestrator.has_resources(process.pid)
        assert list(state.iterdir()) == []


def test_a_folder_that_has_gone_is_said(state: Path) -> None:
    """A path below a file: nothing is made, and the error names it."""
    state.write_text("")
    with ProcessManager.builder().with_journal(state / "below").build() as manager:
        process = manager.create_process("worker")
        with pytest.raises(JournalNotArmedError, match=f"{state.name}/below.*PROBATE_STATE"):
            manager.orchestrator["memory"].manager.create_shared_memory(process.pid, size=1)


def test_a_full_store_fails_the_next_thing_and_loses_none(
    state: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the write, before anything is made; what is noted stays so."""
    monkeypatch.setattr("probate.journal.store._MOST_BYTES", 1 << 16)
    builder = ProcessManager.builder().with_journal(state, reaper=False)
    with builder.build() as manager:
        memory = manager.orchestrator["memory"].manager
        process = manager.create_process("worker")
        made = []

        def fill() -> None:
            while True:
                made.append(memory.create_shared_memory(process.pid, size=1))

        with pytest.raises(OSError, match="the journal"):
            fill()
        held = len([each for each in made if shm(each.name).exists()])

        assert memory.table.count(process.pid) == held == len(made)
        assert process.terminate().is_success
    assert not any(shm(each.name).exists() for each in made)


@pytest.mark.parametrize(
    "row",
    [b"{", b"\xff", b"[" * 100_000, b"1], [2, {}"],
    ids=["cut off", "no text", "deep", "several"],
)
def test_a_store_whose_rows_are_no_json_is_set_aside(
    state: Path, names: list[str], row: bytes
) -> None:
    """Whoever reads them in a child hands them on as they are."""
    folder = dead_host(state, names)
    store = Store(str(folder))
    store.write_all({1 << 40: row})
    store.close()

    (account,) = swept(state)

    assert account.state is HostState.UNREADABLE
    assert all(shm(name).exists() for name in names)
