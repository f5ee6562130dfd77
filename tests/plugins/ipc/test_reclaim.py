"""Whatever dies - the host, or its reaper as well - no queue and no semaphore of its stays."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import posix_ipc
import pytest
import sysv_ipc
from ipc_kernel import is_there, remove
from journal_hosts import JournalHost, kill_all, reaper_of, wait_while
from sysv_kernel import ids_by_key

from probate import Outcome, RefusedResourceError, ResourceOrchestrator, ResourceRecord
from probate.journal.handles import boot_id
from probate.settlement import read_accounts, sweep
from probate_ipc import IpcManager, IpcResource
from probate_ipc.named import named_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate.settlement import HostAccount

#: Each sort: the method that makes it, and how it is opened by its name or key.
SORTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "POSIX queue": ("create_posix_queue", posix_ipc.MessageQueue),
    "POSIX semaphore": ("create_posix_semaphore", posix_ipc.Semaphore),
    "SysV queue": ("create_sysv_queue", sysv_ipc.MessageQueue),
    "SysV semaphore": ("create_sysv_semaphore", sysv_ipc.Semaphore),
}

_PRELUDE = """
import json
import posix_ipc, sysv_ipc

manager = build()
ipc = manager.orchestrator["ipc"].manager
pid = manager.create_process("worker").pid
asked_for = json.loads(sys.argv[2])
made = []

def note(sort, thing):
    made.append((sort, thing.key if sort.startswith("SysV") else thing.name))
    return thing

def make(sort, name=None):
    options = {"max_messages": 2} if sort == "POSIX queue" else {}
    method = "create_" + sort.lower().replace(" ", "_")
    return note(sort, getattr(ipc, method)(pid, name, **options))

"""

#: Makes those that are asked for by name or key; then waits.
HOLDS = (
    _PRELUDE
    + """
for sort, name in asked_for:
    make(sort, name)
say(json.dumps(made))
sys.stdin.read()
"""
)

#: Makes one of each under the names asked for, and one under a free one; adopts one of each.
HOLDS_ALL = (
    _PRELUDE
    + """
for sort, name in asked_for:
    make(sort, name)
    make(sort)
adopted = {
    "POSIX queue": lambda: posix_ipc.MessageQueue(None, posix_ipc.O_CREX, 0o600, 2),
    "POSIX semaphore": lambda: posix_ipc.Semaphore(None, posix_ipc.O_CREX),
    "SysV queue": lambda: sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX),
    "SysV semaphore": lambda: sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX),
}
for sort, create in adopted.items():
    ipc.adopt(pid, note(sort, create()), as_owner=True)
say(json.dumps(made))
sys.stdin.read()
"""
)

#: Dies after the call that makes it, and before it can say of what id or inode it is.
DIES = (
    _PRELUDE
    + """
from probate_ipc import PosixQueue, PosixSemaphore, SysvQueue, SysvSemaphore

((sort, name),) = asked_for
of = {each.sort: each for each in (PosixQueue, PosixSemaphore, SysvQueue, SysvSemaphore)}[sort]
create = of.create

def create_and_die(*arguments, **options):
    note(sort, create(*arguments, **options))
    say(json.dumps(made))
    os.kill(os.getpid(), signal.SIGKILL)

of.create = create_and_die
make(sort, name)
"""
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def names() -> Iterator[list[tuple[str, Any]]]:
    """A name or key for each sort; and whatever else a test puts in, removed after it."""
    found: list[tuple[str, Any]] = [
        (sort, secrets.randbelow(2**31 - 1) + 1)
        if sort.startswith("SysV")
        else (sort, f"/probate-test-{secrets.token_hex(8)}")
        for sort in SORTS
    ]
    yield found
    for sort, name in found:
        if (native := opened(sort, name)) is not None:
            remove(native)


def opened(sort: str, name: Any) -> Any:
    """The native object of that name or key, closed if it is one to close; None if there is none.

    While it is open it is in use: not to be called while a reaper may be at work.
    """
    try:
        native = SORTS[sort][1](name)
    except (posix_ipc.ExistentialError, sysv_ipc.ExistentialError):
        return None
    if sort.startswith("POSIX"):
        native.close()
    return native


def there(things: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Those of them that the kernel has."""
    return [(sort, name) for sort, name in things if opened(sort, name) is not None]


def wait_until_settled(state: Path) -> None:
    """Wait until a reaper has settled the only host, and has said so."""
    wait_while(lambda: not list(state.glob("accounts/*.json")))


def made_by(host: JournalHost, names: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """What a host says that it has made; removed after the test, failed or not."""
    made = [(sort, name) for sort, name in json.loads(host.line())]
    names += [each for each in made if each not in names]
    return made


def swept(state: Path, *, dry_run: bool = False) -> list[HostAccount]:
    orchestrator = ResourceOrchestrator().discover(only=["ipc"])
    return sweep(orchestrator, str(state), dry_run=dry_run)


def kill_with_reaper(host: JournalHost) -> None:
    kill_all(reaper_of(host.process.pid), host.process.pid)
    host.kill()


def test_the_reaper_gives_back_what_a_killed_host_held(
    state: Path, names: list[tuple[str, Any]]
) -> None:
    """Of all sorts: made under a name that was asked for, under a free one, and adopted."""
    with JournalHost(HOLDS_ALL, state, json.dumps(names)) as host:
        made = made_by(host, names)
        assert len(made) == 3 * len(SORTS)
        assert there(made) == made

        host.kill()
        wait_until_settled(state)

        assert there(made) == []
        (account,) = read_accounts(str(state))
        assert {str(row.outcome) for row in account.rows} == {"released"}
        assert sorted(row.description for row in account.rows) == sorted(
            f"{sort} {name:#x}" if isinstance(name, int) else f"{sort} {name!r}"
            for sort, name in made
        )


def test_a_sweep_gives_back_what_host_and_reaper_left(
    state: Path, names: list[tuple[str, Any]]
) -> None:
    """Both killed at a time; a dry run says the same, and touches nothing."""
    with JournalHost(HOLDS_ALL, state, json.dumps(names)) as host:
        made = made_by(host, names)
        kill_with_reaper(host)

        (tried,) = swept(state, dry_run=True)
        assert there(made) == made
        (account,) = swept(state)
        assert [row.outcome for row in account.rows] == ["released"] * len(made)
        assert tried.rows == account.rows
        assert there(made) == []
        assert swept(state) == []


def test_a_successor_of_its_name_or_key_is_left_alone(
    state: Path, names: list[tuple[str, Any]]
) -> None:
    """Removed and made anew by somebody else meanwhile: ours is gone, theirs stays."""
    theirs = IpcManager()
    with JournalHost(HOLDS, state, json.dumps(names)) as host:
        made = made_by(host, names)
        kill_with_reaper(host)
        for sort, name in made:
            remove(opened(sort, name))
            getattr(theirs, SORTS[sort][0])(1, name)
        try:
            (account,) = swept(state)
            assert [row.outcome for row in account.rows] == ["already gone"] * len(SORTS)
            assert there(made) == made
        finally:
            assert theirs.cleanup(1).resources_freed == len(SORTS)


def test_a_posix_one_that_is_in_use_is_kept_until_it_is_not(
    state: Path, names: list[tuple[str, Any]]
) -> None:
    """REFUSED, with who has it open or mapped, and tried again by the next sweep."""
    source = """
    import posix_ipc, sys
    queue, semaphore = posix_ipc.MessageQueue(sys.argv[1]), posix_ipc.Semaphore(sys.argv[2])
    print(flush=True)
    sys.stdin.read()
    """
    with JournalHost(HOLDS, state, json.dumps(names[:2])) as host:
        made = made_by(host, names)
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source), *(name for _, name in made)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as user:
            assert user.stdout is not None
            assert user.stdout.readline() == b"\n"
            kill_with_reaper(host)
            for tries in (1, 2):
                (account,) = swept(state)
                assert [row.tries for row in account.kept] == [tries] * 2
                assert {str(row.outcome) for row in account.kept} == {"refused"}
                assert {row.text for row in account.kept} == {f"still in use by {user.pid}"}
                assert there(made) == made
            user.kill()

        (account,) = swept(state)
        assert [row.outcome for row in account.rows] == ["released"] * 2
        assert there(made) == []


@pytest.mark.parametrize("sort", SORTS)
def test_what_was_made_and_not_yet_confirmed_is_given_back(
    state: Path, names: list[tuple[str, Any]], sort: str
) -> None:
    """Its name or key was drawn, and noted, before it was made: nobody else's is called so."""
    with JournalHost(DIES, state, json.dumps([(sort, None)])) as host:
        made = made_by(host, names)
        wait_until_settled(state)

        assert there(made) == []
        (account,) = read_accounts(str(state))
        assert [str(row.outcome) for row in account.rows] == ["released"]


@pytest.mark.parametrize("sort", SORTS)
def test_of_a_name_of_everybody_s_it_is_reported(
    state: Path, names: list[tuple[str, Any]], sort: str
) -> None:
    """Not confirmed, and asked for: it may have been there before. It is kept, with the reason."""
    wanted = [each for each in names if each[0] == sort]
    with JournalHost(DIES, state, json.dumps(wanted)) as host:
        made = made_by(host, names)
        wait_until_settled(state)

        (account,) = read_accounts(str(state))
        (row,) = account.kept
        assert (row.outcome, there(made)) == ("refused", made)
        assert "its owner died as it made it" in row.text

        remove(opened(*made[0]))
        (account,) = swept(state)
        assert [str(row.outcome) for row in account.rows] == ["already gone"]
        assert swept(state) == []


def test_a_posix_queue_is_looked_for_where_it_was_made(names: list[tuple[str, Any]]) -> None:
    """Another boot has nothing of it; of another IPC namespace nobody knows from here."""
    ((_, name), *_) = names
    ipc = IpcManager()
    queue = ipc.create_posix_queue(1, name, max_messages=2)
    named = named_queue(name)
    here = {**named.before, **named.after(queue), "boot": boot_id()}

    def reclaim(**changes: str) -> Outcome:
        identity = {**here, **changes}
        record = ResourceRecord(kind="ipc", description="it", os_pid=1, identity=identity)
        # This process has it open, and is not counted.
        return IpcResource(ipc).reclaim(record, dry_run=False)

    assert reclaim(boot="another") is Outcome.ALREADY_GONE
    assert reclaim(handle="fid:129:00") is Outcome.ALREADY_GONE
    with pytest.raises(RefusedResourceError, match="another IPC namespace"):
        reclaim(ipc_namespace="inode:1")
    with pytest.raises(RefusedResourceError, match="belongs to user"):
        reclaim(uid=str(os.geteuid() + 1))
    assert is_there(queue.native)
    assert reclaim() is Outcome.RELEASED
    assert not is_there(queue.native)
    assert reclaim() is Outcome.ALREADY_GONE
    ipc.cleanup(1)


def test_what_is_given_back_in_time_leaves_no_row(
    state: Path, names: list[tuple[str, Any]]
) -> None:
    """By hand, or at its owner's end: a host that has closed its manager leaves no store."""
    source = """
    with manager:
        for sort, name in asked_for:
            ipc.close(pid, make(sort, name))
            make(sort)
        ipc.adopt(pid, sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX), as_owner=True)
        say(json.dumps(made))
    say(os.listdir(sys.argv[1]))
    """
    with JournalHost(_PRELUDE + textwrap.dedent(source), state, json.dumps(names)) as host:
        made = made_by(host, names)
        assert host.line() == "[]"
        assert there(made) == []


def test_what_could_not_be_made_leaves_no_row(state: Path, names: list[tuple[str, Any]]) -> None:
    """Its name or key is another's, whose it stays; nor does a failed adoption leave one."""
    source = """
    for sort, name in asked_for:
        try:
            make(sort, name)
        except FileExistsError:
            say("taken")
    lost = posix_ipc.Semaphore(None, posix_ipc.O_CREX)
    lost.unlink()
    say(ipc.adopt(pid, lost, as_owner=True) is not None)
    manager.close()
    say(os.listdir(sys.argv[1]))
    """
    theirs = IpcManager()
    for sort, name in names:
        getattr(theirs, SORTS[sort][0])(1, name)
    try:
        with JournalHost(_PRELUDE + textwrap.dedent(source), state, json.dumps(names)) as host:
            assert [host.line() for _ in names] == ["taken"] * len(names)
            assert host.line() == "True"
            assert host.line() == "[]"
        assert there(names) == names
    finally:
        assert theirs.cleanup(1).resources_freed == len(names)


def test_a_mere_user_s_end_removes_nothing(state: Path, names: list[tuple[str, Any]]) -> None:
    """What a killed host has opened, and not made, is not in its journal."""
    source = """
    for sort, name in asked_for:
        getattr(ipc, "open_" + sort.lower().replace(" ", "_"))(pid, name)
    make("SysV queue")
    say(json.dumps(made))
    sys.stdin.read()
    """
    theirs = IpcManager()
    natives = [getattr(theirs, SORTS[sort][0])(1, name).native for sort, name in names]
    asked_for = list(names)
    try:
        with JournalHost(_PRELUDE + textwrap.dedent(source), state, json.dumps(asked_for)) as host:
            ((_, key),) = made_by(host, names)
            kill_with_reaper(host)
            (account,) = swept(state)
            assert [str(row.outcome) for row in account.rows] == ["released"]
            assert key not in ids_by_key("msg")
        assert all(map(is_there, natives))
    finally:
        assert theirs.cleanup(1).resources_freed == len(asked_for)
    assert os.listdir(state) == []  # noqa: PTH208  names are what is needed
