"""Whatever dies - the host, its reaper, or both - nothing that the host made by a name stays."""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from journal_hosts import JournalHost, kill_all, reaper_of, wait_until_gone

from probate import ResourceOrchestrator
from probate.settlement import HostState, read_accounts, sweep

if TYPE_CHECKING:
    from probate.settlement import HostAccount

#: Makes so many segments, and one of a name that is asked for; then waits.
HOLDS = """
manager = build()
memory = manager.orchestrator["memory"].manager
process = manager.create_process("worker")
names = [memory.create_shared_memory(process.pid, size=4096).name for _ in range(int(sys.argv[2]))]
names.append(memory.create_shared_memory(process.pid, sys.argv[3], size=4096).name)
say(*names)
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def shm(name: str) -> Path:
    return Path("/dev/shm") / name


def swept(state: Path, *, dry_run: bool = False) -> list[HostAccount]:
    orchestrator = ResourceOrchestrator().discover(only=["memory"])
    return sweep(orchestrator, str(state), dry_run=dry_run)


@pytest.mark.parametrize("count", [0, 50])
def test_the_reaper_gives_back_what_a_killed_host_held(state: Path, count: int) -> None:
    """All of it is gone, nobody having called anything; the account says who and what, once."""
    fixed = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(HOLDS, state, str(count), fixed) as host:
        names = host.line().split()
        reaper = os.pidfd_open(reaper_of(host.process.pid))
        assert len(names) == count + 1
        assert all(shm(name).exists() for name in names)

        host.kill()
        wait_until_gone(*map(shm, names))
        assert select.select([reaper], [], [], 30)[0]
        os.close(reaper)

        (account,) = read_accounts(str(state))
        assert account.pid == host.process.pid
        assert account.state is HostState.SETTLED
        assert {row.description for row in account.rows} == {f"shared memory {n}" for n in names}
        assert {str(row.outcome) for row in account.rows} == {"released"}
        assert {row.owner.pid for row in account.rows} == {1}
        assert read_accounts(str(state)) == []
        assert sorted(each.name for each in state.iterdir()) == ["accounts"]


def test_the_reaper_of_a_host_that_ignores_sigchld_settles_all_its_journals(tmp_path: Path) -> None:
    """What is ignored stays so through execve(2), and wait(2) has nobody to wait for then."""
    source = """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    managers = []
    for number in range(3):
        sys.argv[1] += str(number)
        managers.append(build())
        memory = managers[-1].orchestrator["memory"].manager
        say(memory.create_shared_memory(managers[-1].create_process("worker").pid, size=4096).name)
    sys.stdin.read()
    """
    with JournalHost(source, tmp_path / "state") as host:
        paths = [shm(host.line()) for _ in range(3)]
        host.kill()
        wait_until_gone(*paths)


def test_a_sweep_gives_back_what_host_and_reaper_left(state: Path) -> None:
    """Both killed at a time; a dry run says the same, and touches nothing."""
    fixed = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(HOLDS, state, "3", fixed) as host:
        names = host.line().split()
        reaper = reaper_of(host.process.pid)
        assert [each.state for each in swept(state)] == [HostState.ALIVE]
        kill_all(reaper, host.process.pid)
        host.kill()

        (tried,) = swept(state, dry_run=True)
        assert all(shm(name).exists() for name in names)
        (account,) = swept(state)
        assert [row.outcome for row in account.rows] == ["released"] * 4
        assert tried.rows == account.rows
        assert not any(shm(name).exists() for name in names)
        assert swept(state) == []


def test_a_killed_reaper_is_replaced(state: Path) -> None:
    """And the new one does what the old one would have; until it is told to, nothing is made."""
    source = """
    manager = build()
    memory = manager.orchestrator["memory"].manager
    process = manager.create_process("worker")
    while True:
        say(memory.create_shared_memory(process.pid, size=4096).name)
        sys.stdin.readline()
    """
    with JournalHost(source, state) as host:
        names = [host.line()]
        first = reaper_of(host.process.pid)
        kill_all(first)
        # The dead one is not found: its command line is empty.
        assert reaper_of(host.process.pid) != first
        assert host.process.stdin is not None
        host.process.stdin.write("\n")
        host.process.stdin.flush()
        names.append(host.line())

        host.kill()
        wait_until_gone(*map(shm, names))


def test_what_is_given_back_in_time_leaves_no_row(state: Path) -> None:
    """A host that has closed its manager leaves no store and no reaper."""
    source = """
    manager = build()
    memory = manager.orchestrator["memory"].manager
    with manager:
        process = manager.create_process("worker")
        by_hand = memory.create_shared_memory(process.pid, size=1)
        memory.create_shared_memory(process.pid, size=1)
        memory.close(process.pid, by_hand)
        say("made")
        sys.stdin.readline()
    say("closed")
    sys.stdin.read()
    """
    with JournalHost(source, state) as host:
        assert host.line() == "made"
        reaper = os.pidfd_open(reaper_of(host.process.pid))
        assert host.process.stdin is not None
        host.process.stdin.write("\n")
        host.process.stdin.flush()
        assert host.line() == "closed"

        assert select.select([reaper], [], [], 30)[0]
        os.close(reaper)
        assert list(state.iterdir()) == []


def test_without_a_reaper_nothing_is_made(state: Path) -> None:
    """It fails closed, before anything is acquired, and says the way out."""
    source = """
    from probate import JournalNotArmedError
    manager = build()
    memory = manager.orchestrator["memory"].manager
    process = manager.create_process("worker")
    executable, sys.executable = sys.executable, "/bin/false"
    try:
        memory.create_shared_memory(process.pid, sys.argv[2], size=1)
    except JournalNotArmedError as error:
        say(error, os.path.exists("/dev/shm/" + sys.argv[2]))
    sys.executable = executable
    say(memory.create_shared_memory(process.pid, sys.argv[2], size=1).name)
    manager.close()
    """
    name = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(source, state, name) as host:
        line = host.line()
        assert "no reaper could be started" in line
        assert "with_journal(reaper=False)" in line
        assert line.endswith("False")
        assert host.line() == name


def test_a_reaper_that_is_not_needed_after_all_ends_at_once(state: Path) -> None:
    """Ctrl-C as it is told what to settle: it waited for its host to die, which waited for its end.

    Until that was killed, five seconds later. There is another one for what is made then.
    """
    source = """
    from probate.journal import arming, host

    def fall_in(*_):
        raise KeyboardInterrupt

    arming._PATIENCE = 1000.0
    manager = build()
    memory = manager.orchestrator["memory"].manager
    process = manager.create_process("worker")
    sweep_beside, host.sweep_beside = host.sweep_beside, fall_in
    try:
        memory.create_shared_memory(process.pid, sys.argv[2], size=1)
    except KeyboardInterrupt:
        say("interrupted", os.path.exists("/dev/shm/" + sys.argv[2]))
    host.sweep_beside = sweep_beside
    say(memory.create_shared_memory(process.pid, sys.argv[2], size=1).name)
    sys.stdin.read()
    """
    name = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(source, state, name) as host:
        assert host.line() == "interrupted False"
        assert host.line() == name

        host.kill()
        wait_until_gone(shm(name))


def test_a_handler_that_closes_all_in_the_midst_of_a_write(state: Path) -> None:
    """Whoever gave back, on a thread of its own, waited for that write, which waited for the end.

    The host was there for ever, with all that it had. Now each row is deleted in the end.
    """
    source = """
    from probate.journal import loggedstore

    def fall_in(row):
        # Between any two bytecodes.
        loggedstore.body_of = body_of
        manager.close()
        say("closed", os.path.exists("/dev/shm/" + sys.argv[2]))
        raise KeyboardInterrupt

    manager = build()
    memory = manager.orchestrator["memory"].manager
    process = manager.create_process("worker")
    memory.create_shared_memory(process.pid, sys.argv[2], size=1)
    body_of, loggedstore.body_of = loggedstore.body_of, fall_in
    try:
        memory.create_shared_memory(process.pid, size=1)
    except KeyboardInterrupt:
        say("left", len(os.listdir(sys.argv[1])))
    sys.stdin.read()
    """
    name = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(source, state, name) as host:
        assert host.line() == "closed False"
        assert host.line() == "left 0"


def test_a_manager_without_named_things_has_no_journal(state: Path) -> None:
    """No store, no reaper, for what the kernel takes back by itself."""
    source = """
    with build() as manager:
        process = manager.create_process("worker")
        manager.orchestrator["memory"].manager.allocate(process.pid, 4096)
        say(os.path.exists(sys.argv[1]))
    """
    with JournalHost(source, state) as host:
        assert host.line() == "False"


def test_a_segment_that_is_in_use_is_kept_until_it_is_not(state: Path) -> None:
    """REFUSED, with who uses it, and tried again by the next sweep."""
    name = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(HOLDS, state, "0", name) as host:
        assert host.line() == name
        kill_all(reaper_of(host.process.pid), host.process.pid)
        host.kill()
        with shm(name).open("rb") as file:
            user = subprocess.Popen(["sleep", "1000"], stdin=file)
        try:
            for tries in (1, 2):
                (account,) = swept(state)
                (row,) = account.kept
                assert (row.outcome, row.tries) == ("refused", tries)
                assert row.text == f"still in use by {user.pid}"
                assert shm(name).exists()
        finally:
            user.kill()
            user.wait()

        (account,) = swept(state)
        assert [row.outcome for row in account.rows] == ["released"]
        assert not shm(name).exists()


def test_a_successor_of_the_name_is_left_alone(state: Path) -> None:
    """Removed and made anew by somebody else meanwhile: ours is gone, theirs stays."""
    name = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(HOLDS, state, "0", name) as host:
        assert host.line() == name
        kill_all(reaper_of(host.process.pid), host.process.pid)
        host.kill()
        shm(name).unlink()
        shm(name).write_text("theirs")
        try:
            (account,) = swept(state)
            assert [row.outcome for row in account.rows] == ["already gone"]
            assert shm(name).read_text() == "theirs"
        finally:
            shm(name).unlink()


def test_the_command_prints_and_forgets(state: Path) -> None:
    """`probate sweep`: exit 3 while something is kept, 0 when it is forgotten."""
    name = f"probate-test-{secrets.token_hex(8)}"

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "probate", "sweep", *options],
            capture_output=True,
            text=True,
            env={**os.environ, "PROBATE_STATE": str(state)},
            check=False,
        )

    with JournalHost(HOLDS, state, "0", name) as host:
        assert host.line() == name
        kill_all(reaper_of(host.process.pid), host.process.pid)
        host.kill()
        with shm(name).open("rb") as file, subprocess.Popen(["sleep", "1000"], stdin=file) as user:
            kept = run("--json")
            again = run()
            user.kill()
        row = json.loads(kept.stdout)["hosts"][0]["rows"][0]["row"]
        forgotten = run("--forget", row)
        nothing = run()
        unknown = run("--forget", row)
        shm(name).unlink()

    assert (kept.returncode, again.returncode) == (3, 3)
    assert row in again.stdout
    assert "still in use" in again.stdout
    assert (forgotten.returncode, forgotten.stderr) == (0, "")
    assert (nothing.returncode, nothing.stdout) == (
        0,
        "nothing is left of any host that has died\n",
    )
    assert unknown.returncode == 1
    assert "no row" in unknown.stderr


def test_the_next_host_has_settled_what_host_and_reaper_left(state: Path) -> None:
    """At its first named thing, off its way: nobody calls a sweep."""
    left = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(HOLDS, state, "0", left) as host:
        assert host.line() == left
        kill_all(reaper_of(host.process.pid), host.process.pid)
    name = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(HOLDS, state, "0", name) as host:
        assert host.line() == name
        wait_until_gone(shm(left))
        assert shm(name).exists()
        host.kill()
        wait_until_gone(shm(name))


def test_a_next_host_that_ends_at_once_has_them_settled_all_the_same(state: Path) -> None:
    """As the name that it wants is taken: whatever starts it again came to the same end for ever.

    Its own store had gone by the time that the sweep looked into it for where to import from.
    """
    left = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(HOLDS, state, "0", left) as host:
        assert host.line() == left
        kill_all(reaper_of(host.process.pid), host.process.pid)
    source = """
    with build() as manager:
        process = manager.create_process("worker")
        memory = manager.orchestrator["memory"].manager
        try:
            memory.create_shared_memory(process.pid, sys.argv[2], size=1)
        except FileExistsError:
            say("it is taken")
    """
    with JournalHost(source, state, left) as host:
        assert host.line() == "it is taken"
        assert host.process.wait(30) == 0
    wait_until_gone(shm(left))


def test_a_forked_child_owns_nothing(state: Path) -> None:
    """Its end is not the host's, nor does it write into the host's store."""
    source = """
    manager = build()
    memory = manager.orchestrator["memory"].manager
    process = manager.create_process("worker")
    say(memory.create_shared_memory(process.pid, sys.argv[2], size=4096).name)
    child = os.fork()
    if child == 0:
        manager.close()
        os._exit(0)
    os.waitpid(child, 0)
    child = os.fork()
    if child == 0:
        sys.stdin.read()
        os._exit(0)
    say(child)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    name = f"probate-test-{secrets.token_hex(8)}"
    with JournalHost(source, state, name) as host:
        assert host.line() == name
        child = int(host.line())
        host.process.wait(30)
        # It lives on, and has what the host had mapped: a user like any other.
        deadline = time.monotonic() + 30
        while not (found := read_accounts(str(state))):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert [row.text for row in found[0].rows] == [f"still in use by {child}"]
        kill_all(child)
        (account,) = swept(state)
        assert [row.outcome for row in account.rows] == ["released"]
