"""Without handles of processes or files, by older kernels or in containers: made up for."""

from __future__ import annotations

import errno
import os
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import seccomp
from children import exit_code_of_fork
from journal_hosts import JournalHost, kill_all, reaper_of, wait_until_gone, wait_while

from probate import ResourceOrchestrator
from probate.journal.folders import HEADER, read_json
from probate.journal.handles import file_handle, open_process, process_handle
from probate.settlement import HostAccount, HostState, sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.settlement import RowAccount

pytestmark = pytest.mark.skipif(
    not seccomp.is_known(), reason="the numbers of system calls are not known here"
)

#: No handles at all, as a file system says it, or a kernel; and none to be opened, as in containers
#: that are not given CAP_DAC_READ_SEARCH.
NONE = partial(seccomp.refuse_handles)
NO_CALL = partial(seccomp.refuse_handles, number=errno.ENOSYS)
NOT_OPENED = partial(seccomp.refuse_handles, number=errno.EPERM, to_get=False)

HOLDS = """
manager = build()
process = manager.create_process("worker")
files, memory = (manager.orchestrator[kind].manager for kind in ("files", "memory"))
names = [memory.create_shared_memory(process.pid, each, size=4096).name
         for each in (None, sys.argv[3])]
file = files.temporary_file(process.pid, directory=sys.argv[2]).name
say(file, *(f"/dev/shm/{name}" for name in names))
sys.stdin.read()
"""


def swept_under(refuse: Callable[[], None], state: Path) -> list[HostAccount]:
    """What a sweep says, in a process that is refused it."""
    receiving, sending = os.pipe()

    def child() -> None:
        refuse()
        orchestrator = ResourceOrchestrator().discover(only=["files", "memory"])
        for account in sweep(orchestrator, str(state)):
            os.write(sending, f"{account.model_dump_json()}\n".encode())

    assert exit_code_of_fork(child) == 0
    os.close(sending)
    with open(receiving) as file:
        return [HostAccount.model_validate_json(line) for line in file]


def kept_by(refuse: Callable[[], None], state: Path) -> list[RowAccount]:
    """What a sweep says that it keeps, once the reaper is not at it any more."""
    found: list[RowAccount] = []

    def look() -> bool:
        found[:] = swept_under(refuse, state)[-1].kept
        return not found

    wait_while(look)
    return found


def test_what_is_refused_is_refused() -> None:
    """So that the others test what they say."""

    def child(refuse: Callable[[], None], *, has_handles: bool) -> None:
        pidfd = os.pidfd_open(os.getpid())
        handle = process_handle(pidfd)
        refuse()
        assert (file_handle(os.open("/", os.O_PATH)) is not None) == has_handles
        if not has_handles:
            assert process_handle(pidfd) is None
        if handle is not None:
            with pytest.raises(OSError, match="process handle"):
                open_process(handle)

    for refuse, has_handles in ((NONE, False), (NO_CALL, False), (NOT_OPENED, True)):
        assert exit_code_of_fork(partial(child, refuse, has_handles=has_handles)) == 0


@pytest.mark.parametrize("refuse", [NONE, NO_CALL, NOT_OPENED], ids=["none", "call", "opened"])
@pytest.mark.parametrize("dies", ["host", "both"])
def test_a_host_without_handles_is_settled_all_the_same(
    tmp_path: Path, refuse: Callable[[], None], dies: str
) -> None:
    """By pid and start time; what has a random name is given back, any other is kept, and why."""
    name = f"probate-test-{secrets.token_hex(8)}"
    state = tmp_path / "state"
    with JournalHost(HOLDS, state, str(tmp_path), name, preexec_fn=refuse) as host:
        paths = [Path(each) for each in host.line().split()]
        try:
            handle = read_json(host.folder / HEADER)["handle"]
            assert [each.state for each in swept_under(refuse, state)] == [HostState.ALIVE]
            kept = [] if refuse is NOT_OPENED else [paths.pop()]
            if dies == "both":
                kill_all(reaper_of(host.process.pid), host.process.pid)
                host.kill()
                swept_under(refuse, state)
            else:
                host.kill()
                wait_until_gone(*paths)

            assert not any(path.exists() for path in paths)
            assert (handle is None) == (refuse is not NOT_OPENED)
            if kept:
                (row,) = kept_by(refuse, state)
                assert "gives no handles" in row.text
                assert kept[0].exists()
        finally:
            (Path("/dev/shm") / name).unlink(missing_ok=True)


def test_a_host_that_lives_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    """Whoever cannot open its handle goes by pid and start time; and one of another's is told."""
    name = f"probate-test-{secrets.token_hex(8)}"
    state = tmp_path / "state"
    with JournalHost(HOLDS, state, str(tmp_path), name) as host:
        paths = [Path(each) for each in host.line().split()]
        for refuse in (NONE, NOT_OPENED):
            assert [each.state for each in swept_under(refuse, state)] == [HostState.ALIVE]
        assert all(path.exists() for path in paths)
        host.kill()
        wait_until_gone(*paths)
