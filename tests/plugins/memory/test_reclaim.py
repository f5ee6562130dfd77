"""Whatever dies - the host, or its reaper as well - no SysV segment of its stays.

Of POSIX segments tests/core/journal/test_crashes.py says the same.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest
import sysv_ipc
from journal_estates import Estate
from journal_hosts import JournalHost, kill_all, reaper_of, wait_while
from sysv_kernel import create, has_id, ids_by_key, remove

from probate import ResourceOrchestrator
from probate.journal import sysv
from probate.settlement import read_accounts, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from probate.settlement import HostAccount

SEGMENT = Estate(
    "memory",
    """
    paths.append("/dev/shm/" + kind.create_shared_memory(process.pid, size=4096).name)
    """,
)

_PRELUDE = """
import json
import sysv_ipc

manager = build()
memory = manager.orchestrator["memory"].manager
pid = manager.create_process("worker").pid
made = []

def note(segment):
    made.append(segment.id)
    return segment

def make(key=None):
    return note(memory.create_segment(pid, 4096, key=key))

"""

#: Makes one under the key asked for; then waits.
HOLDS = (
    _PRELUDE
    + """
make(int(sys.argv[2]))
say(json.dumps(made))
sys.stdin.read()
"""
)

#: Also under a free key, and under none; detaches one, and adopts one. Then waits.
HOLDS_ALL = (
    _PRELUDE
    + """
make(int(sys.argv[2]))
make(sysv_ipc.IPC_PRIVATE)
make().detach()
make()
adopted = note(sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=1))
memory.adopt_segment(pid, adopted, as_owner=True)
say(json.dumps(made))
sys.stdin.read()
"""
)

#: Dies after the call that makes it, and before it can say of what id it is.
DIES = (
    _PRELUDE
    + """
from probate_memory import sysv

create = sysv.create

def create_and_die(size, mode, build, **options):
    note(create(size, mode, lambda native: native, **options))
    say(json.dumps(made))
    os.kill(os.getpid(), signal.SIGKILL)

sysv.create = create_and_die
make(*map(int, sys.argv[2:]))
"""
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def key() -> Iterator[int]:
    """A key that is nobody's; what is under it after the test is removed."""
    drawn = secrets.randbelow(2**31 - 1) + 1
    yield drawn
    if (found := ids_by_key("shm").get(drawn)) is not None:
        remove("shm", found)


def there(ids: list[int]) -> list[int]:
    """Those that the kernel has."""
    return [each for each in ids if has_id("shm", each)]


def swept(state: Path, *, dry_run: bool = False) -> list[HostAccount]:
    orchestrator = ResourceOrchestrator().discover(only=["memory"])
    return sweep(orchestrator, str(state), dry_run=dry_run)


def wait_until_settled(state: Path) -> None:
    """Wait until a reaper has settled the only host, and has said so."""
    wait_while(lambda: not list(state.glob("accounts/*.json")))


def kill_with_reaper(host: JournalHost) -> None:
    kill_all(reaper_of(host.process.pid), host.process.pid)
    host.kill()


def test_the_reaper_gives_back_what_a_killed_host_held(state: Path, key: int) -> None:
    """Under a key that was asked for, a free one or none; attached or not; made or adopted."""
    with JournalHost(HOLDS_ALL, state, str(key)) as host:
        made = json.loads(host.line())
        assert len(there(made)) == 5

        host.kill()
        wait_until_settled(state)

        assert there(made) == []
        (account,) = read_accounts(str(state))
        assert [str(row.outcome) for row in account.rows] == ["released"] * 5
        assert f"SysV segment with key {key:#x}" in {row.description for row in account.rows}


def test_a_sweep_gives_back_what_host_and_reaper_left(state: Path, key: int) -> None:
    """Both killed at a time; a dry run says the same, and touches nothing."""
    with JournalHost(HOLDS_ALL, state, str(key)) as host:
        made = json.loads(host.line())
        kill_with_reaper(host)

        (tried,) = swept(state, dry_run=True)
        assert there(made) == made
        (account,) = swept(state)
        assert [row.outcome for row in account.rows] == ["released"] * 5
        assert tried.rows == account.rows
        assert there(made) == []
        assert swept(state) == []


def test_a_successor_of_the_key_is_left_alone(state: Path, key: int) -> None:
    """Removed and made anew by somebody else meanwhile: ours is gone, theirs stays."""
    with JournalHost(HOLDS, state, str(key)) as host:
        (made,) = json.loads(host.line())
        kill_with_reaper(host)
        remove("shm", made)
        theirs = create("shm", key)
        theirs.write(b"theirs")
        theirs.detach()

        (account,) = swept(state)
        theirs.attach()
        found = theirs.read(6)
        theirs.detach()
        assert [row.outcome for row in account.rows] == ["already gone"]
        assert found == b"theirs"


@contextlib.contextmanager
def attached(made: int) -> Iterator[subprocess.Popen[bytes]]:
    """Have another OS process attach a segment, until it is killed."""
    source = (
        "import sys, sysv_ipc; s = sysv_ipc.attach(int(sys.argv[1])); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", source, str(made)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"\n"
        try:
            yield user
        finally:
            user.kill()


def test_a_segment_that_is_attached_is_kept_until_it_is_not(state: Path, key: int) -> None:
    """REFUSED, with how many are attached, and tried again by the next sweep."""
    with JournalHost(HOLDS, state, str(key)) as host:
        (made,) = json.loads(host.line())
        with attached(made):
            kill_with_reaper(host)
            for tries in (1, 2):
                (account,) = swept(state)
                (row,) = account.kept
                assert (row.outcome, row.tries) == ("refused", tries)
                assert row.text == "still attached by 1"
                assert there([made]) == [made]

        (account,) = swept(state)
        assert [row.outcome for row in account.rows] == ["released"]
        assert there([made]) == []


def test_who_is_about_to_be_gone_is_waited_for(
    state: Path, key: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of a dead host may outlast it for a moment, while others read its maps."""
    monkeypatch.setattr(sysv, "_LINGERING", 20.0)
    monkeypatch.setattr(sysv, "_waited_at", float("-inf"))
    with JournalHost(HOLDS, state, str(key)) as host:
        (made,) = json.loads(host.line())
        with attached(made) as user:
            kill_with_reaper(host)
            leaving = threading.Timer(0.2, user.kill)
            leaving.start()
            (account,) = swept(state)
            leaving.join()
        assert [row.outcome for row in account.rows] == ["released"]
        assert there([made]) == []


def test_what_was_made_and_not_yet_confirmed_is_given_back(state: Path) -> None:
    """Its key was drawn, and noted, before it was made: nobody else's has it."""
    with JournalHost(DIES, state) as host:
        made = json.loads(host.line())
        wait_until_settled(state)

        assert there(made) == []
        (account,) = read_accounts(str(state))
        assert [str(row.outcome) for row in account.rows] == ["released"]


@pytest.mark.parametrize("is_private", [False, True])
def test_of_a_key_of_everybody_s_it_is_reported(state: Path, key: int, is_private: bool) -> None:
    """Not confirmed, and asked for: it may have been there before. It is kept, with the reason."""
    wanted = sysv_ipc.IPC_PRIVATE if is_private else key
    with JournalHost(DIES, state, str(wanted)) as host:
        made = json.loads(host.line())
        try:
            wait_until_settled(state)

            (account,) = read_accounts(str(state))
            (row,) = account.kept
            assert (row.outcome, there(made)) == ("refused", made)
            assert "its owner died as it made it" in row.text
        finally:
            remove("shm", made[0])


def test_what_is_given_back_in_time_leaves_no_row(state: Path, key: int) -> None:
    """By hand, at its owner's end, or by whoever removed it: no store is left."""
    source = """
    with manager:
        memory.close(pid, make(int(sys.argv[2])))
        memory.unlink(pid, make())
        gone = make()
        gone.detach()
        gone.remove()
        make()
        try:
            memory.create_segment(pid, 1 << 62)
        except OSError:
            say(json.dumps(made))
    say(os.listdir(sys.argv[1]))
    """
    with JournalHost(_PRELUDE + textwrap.dedent(source), state, str(key)) as host:
        made = json.loads(host.line())
        assert host.line() == "[]"
        assert (len(made), there(made)) == (4, [])


def test_a_mere_user_s_end_removes_nothing(state: Path, key: int) -> None:
    """What a killed host has attached, and not made, is not in its journal."""
    source = """
    memory.open_segment_by_key(pid, int(sys.argv[2]))
    make()
    say(json.dumps(made))
    sys.stdin.read()
    """
    theirs = create("shm", key)
    theirs.detach()
    with JournalHost(_PRELUDE + textwrap.dedent(source), state, str(key)) as host:
        made = json.loads(host.line())
        kill_with_reaper(host)
        (account,) = swept(state)
        assert [row.outcome for row in account.rows] == ["released"]
        assert there([*made, theirs.id]) == [theirs.id]


def test_a_killed_worker(tmp_path: Path) -> None:
    """The host removes the segment at once."""
    SEGMENT.goes_with_a_killed_worker(tmp_path)
