"""A journal among what is not its own: numbers that others close, folders that others have."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from children import exit_code_of_fork
from journal_hosts import JournalHost, wait_until_gone, wait_while

from probate import ProcessManager, ResourceOrchestrator
from probate.journal.folders import HEADER
from probate.settlement import HostAccount, sweep


def swept(state: Path) -> list[HostAccount]:
    return sweep(ResourceOrchestrator().discover(only=["files"]), str(state))


def numbers_of(state: Path) -> list[int]:
    """The descriptors of this process that mean files of stores in there, by proc(5)."""
    links = {int(each.name): each for each in Path("/proc/self/fd").iterdir()}
    return [
        number
        for number, link in links.items()
        if os.path.lexists(link) and Path(os.readlink(link)).is_relative_to(state)
    ]


@pytest.mark.parametrize("which", [[0, 1], [0], [1]])
def test_who_gets_the_number_of_a_journal_keeps_what_is_in_the_file(
    tmp_path: Path, which: list[int]
) -> None:
    """A program closes what it knows nothing of, and opens its own: the journal moves if it must.

    LMDB has two numbers for the file, and writes by the first alone, as it is used here.
    """

    def host() -> None:
        manager = ProcessManager.builder().with_journal(tmp_path / "state", reaper=False).build()
        files = manager.orchestrator["files"].manager
        process = manager.create_process("worker")
        files.mkfifo(process.pid, tmp_path / "first")
        numbers = sorted(numbers_of(tmp_path / "state"))
        closed = [numbers[each] for each in which]
        for number in closed:
            os.close(number)
        (tmp_path / "own").write_bytes(b"theirs")
        taken = [os.open(tmp_path / "own", os.O_RDWR) for _ in closed]
        assert taken == closed

        files.mkfifo(process.pid, tmp_path / "second")
        assert (tmp_path / "own").read_bytes() == b"theirs"
        assert {os.fstat(each).st_ino for each in taken} == {(tmp_path / "own").stat().st_ino}
        assert not set(numbers_of(tmp_path / "state")) & set(taken)
        os.kill(os.getpid(), signal.SIGKILL)

    assert exit_code_of_fork(host) == -signal.SIGKILL
    (account,) = swept(tmp_path / "state")
    assert [row.outcome for row in account.rows] == ["released"] * 2
    assert [each.name for each in tmp_path.iterdir() if each.is_fifo()] == []


def test_a_host_without_standard_streams_has_no_store_in_their_stead(tmp_path: Path) -> None:
    """What is written to standard error, as by a crash, is in no store."""

    def host() -> None:
        os.closerange(0, 3)
        manager = ProcessManager.builder().with_journal(tmp_path / "state", reaper=False).build()
        manager.orchestrator["files"].manager.mkfifo(
            manager.create_process("worker").pid, tmp_path / "fifo"
        )
        assert min(numbers_of(tmp_path / "state")) > 2
        os._exit(7)

    assert exit_code_of_fork(host) == 7
    (account,) = swept(tmp_path / "state")
    assert [row.outcome for row in account.rows] == ["released"]


def test_what_a_user_has_in_the_same_folder_is_left_alone(tmp_path: Path) -> None:
    """Somebody names the home as the place: nothing in there is taken for a store's by its name."""
    tmp_path.chmod(0o700)
    own = [tmp_path / each for each in ("new-project", "gone-fishing", "host-a", "accounts")]
    for folder in own:
        folder.mkdir()
        for number in range(101):
            (folder / f"{number}.json").write_text("{}")
        (folder / HEADER).write_text("{}")
        os.utime(folder, (0, 0))

    def host() -> None:
        manager = ProcessManager.builder().with_journal(tmp_path).build()
        process = manager.create_process("worker")
        manager.orchestrator["files"].manager.mkfifo(process.pid, tmp_path / "fifo")
        os.kill(os.getpid(), signal.SIGKILL)

    assert exit_code_of_fork(host) == -signal.SIGKILL
    wait_until_gone(tmp_path / "fifo")
    wait_while(lambda: not list(tmp_path.glob("accounts/host-*.json")))
    (account,) = swept(tmp_path)
    assert [row.outcome for row in account.rows] == ["released"]
    assert sorted(tmp_path.iterdir()) == sorted(own)
    assert [len(list(folder.iterdir())) for folder in own] == [102] * 4


def test_a_store_that_is_full_says_so_and_loses_nothing(tmp_path: Path) -> None:
    """By the limit, not by what LMDB says of the commit; there is room again when rows go."""
    manager = ProcessManager.builder().with_journal(tmp_path / "state", reaper=False).build()
    with manager:
        first = manager.create_process("first", key="1" * (40 << 20))
        with pytest.raises(OSError, match=r"no room in the journal: .* at most 64 MiB"):
            manager.create_process("second", key="2" * (40 << 20))
        assert [each.pid for each in manager.list_processes()] == [first.pid]

        first.terminate()
        manager.create_process("third", key="3" * (1 << 20))


def test_who_gets_the_numbers_of_a_host_gets_nothing_more(tmp_path: Path) -> None:
    """A program makes itself a daemon, closes all numbers, and opens things of its own.

    The wake of the death watch was written into one of them, and what is said to the reaper went to
    whoever had the number of its socket, which was closed in the end.
    """
    source = """
    import socket

    manager = build()
    process = manager.create_process("worker")
    manager.orchestrator["memory"].manager.create_shared_memory(process.pid, size=1)
    last = 1 + max(map(int, os.listdir("/proc/self/fd")))
    os.closerange(3, last)
    files, sockets = [], []
    while len(files) + 2 * len(sockets) < 2 * last:
        files.append(open(os.path.join(sys.argv[2], str(len(files))), "w+b", buffering=0))
        sockets.append(socket.socketpair())
    manager.close()
    for file in files:
        assert os.fstat(file.fileno()).st_size == 0, file.name
    for pair in sockets:
        for each in pair:
            each.setblocking(False)
            try:
                raise AssertionError(each.recv(99))
            except BlockingIOError:
                pass
    say("nothing")
    """
    with JournalHost(source, tmp_path / "state", str(tmp_path)) as host:
        assert host.line() == "nothing"
