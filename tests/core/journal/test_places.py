"""Where a journal is kept fails: nothing is lost, nothing is wrongly removed, and it is said."""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from children import exit_code_of_fork
from journal_hosts import JournalHost, kill_all, reaper_of, wait_until_gone
from journal_stores import dead_store, row_of
from mount_namespace import enter_mount_namespace, mount_tmpfs

from probate import JournalNotArmedError, Outcome, ProcessManager, ResourceOrchestrator
from probate.journal import boot_id, path_identity
from probate.journal.folders import LOCK, make_host_folder
from probate.journal.host import HostJournal
from probate.journal.loggedstore import LoggedStore
from probate.journal.named import Named
from probate.journal.users import look_again
from probate.settlement import HostAccount, HostState, sweep

if TYPE_CHECKING:
    from collections.abc import Callable


def swept(state: Path) -> list[HostAccount]:
    look_again()
    return sweep(ResourceOrchestrator().discover(only=["files"]), str(state))


def in_mount_namespace(test: Callable[[], None]) -> None:
    def child() -> None:
        enter_mount_namespace()
        test()

    assert exit_code_of_fork(child) == 0


def run_sweep(state: Path) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "probate", "sweep"],
        capture_output=True,
        text=True,
        env={**os.environ, "PROBATE_STATE": str(state)},
        check=False,
    )


# -- no room, no folder ------------------------------------------------------------


@pytest.mark.needs_root(reason="mounts a file system without room, for itself")
def test_a_full_disk_fails_the_next_thing_and_loses_none(tmp_path: Path) -> None:
    """The host says so before it makes it; a sweep gives back what it had, on the full disk."""
    state, things = tmp_path / "state", tmp_path / "things"
    state.mkdir()
    things.mkdir()

    def host() -> None:
        manager = ProcessManager.builder().with_journal(state, reaper=False).build()
        files = manager.orchestrator["files"].manager
        process = manager.create_process("worker")
        made = 0

        def fill() -> None:
            nonlocal made
            while True:
                files.temporary_file(process.pid, directory=things)
                made += 1

        with pytest.raises(OSError, match="journal"):
            fill()
        assert made > 10
        assert len(list(things.iterdir())) == made == files.table.count(process.pid)
        with pytest.raises(OSError, match="journal"):
            files.temporary_file(process.pid, directory=things)
        os.kill(os.getpid(), signal.SIGKILL)

    def test() -> None:
        mount_tmpfs(state, "size=96k,mode=700")
        assert exit_code_of_fork(host) == -signal.SIGKILL
        with pytest.raises(OSError, match="No space"):
            (state / "filler").write_bytes(bytes(1 << 20))
        kept, *_ = things.iterdir()
        with kept.open():
            user = os.fork()
            if user == 0:
                signal.pause()
            (account,) = swept(state)
            assert list(things.iterdir()) == [kept]
            (row,) = account.kept
            assert f"still in use by {user}" in row.text
            assert "could not be noted" in account.text
            (account,) = swept(state)
            assert [row.outcome for row in account.kept] == ["refused"]
            kill_all(user)
            os.waitpid(user, 0)
        (account,) = swept(state)
        assert account.kept == []
        assert list(things.iterdir()) == []
        assert [each.name for each in state.iterdir()] == ["filler"]

    in_mount_namespace(test)


@pytest.fixture
def logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Instead of /run/user and /tmp; no home, and nothing is set."""
    monkeypatch.delenv("PROBATE_STATE", raising=False)
    monkeypatch.setenv("HOME", "/proc/no-home")
    for name, folder in (("_LOGINS", tmp_path / "run"), ("_TEMPORARY", tmp_path / "tmp")):
        folder.mkdir()
        monkeypatch.setattr(f"probate.journal.folders.{name}", folder)
    return tmp_path / "run"


@pytest.mark.needs_root(reason="mounts a read-only folder, for itself")
def test_without_any_folder_nothing_is_made(logins: Path) -> None:
    """Neither of the login's, nor of the home, nor in /tmp: each is named, and the way out."""
    temporary = logins.with_name("tmp")

    def test() -> None:
        mount_tmpfs(temporary, "ro")
        with ProcessManager.builder().build() as manager:
            process = manager.create_process("worker")
            with pytest.raises(JournalNotArmedError) as raised:
                manager.orchestrator["memory"].manager.create_shared_memory(process.pid, size=1)
            assert not manager.orchestrator.has_resources(process.pid)
        text = str(raised.value)
        for part in (f"{logins}/0/", "/proc/no-home/", f"{temporary}/probate-0-"):
            assert part in text, text
        for part in ("No such file", "Read-only", "PROBATE_STATE", "without_journal()"):
            assert part in text, text

    in_mount_namespace(test)


def test_the_last_place_is_a_new_one_that_sweeps_find(logins: Path) -> None:
    """In /tmp, where all others fail; found there again, and used by the next host."""
    first, second = make_host_folder({}), make_host_folder({})
    assert first.parent == second.parent
    assert first.parent.parent == logins.with_name("tmp")
    assert first.parent.stat().st_mode & 0o777 == 0o700

    found = sweep(ResourceOrchestrator())
    assert [each.state for each in found] == [HostState.UNREADABLE] * 2


#: Makes a segment of a name at each line, says so, and waits for the next.
MAKES = """
manager = build()
memory = manager.orchestrator["memory"].manager
process = manager.create_process("worker")
say("up")
for line in sys.stdin:
    memory.create_shared_memory(process.pid, line.strip(), size=4096)
    say("made")
"""


def make(host: JournalHost, name: str) -> Path:
    """Have the host make a segment."""
    assert host.process.stdin is not None
    host.process.stdin.write(f"{name}\n")
    host.process.stdin.flush()
    assert host.line() == "made"
    return Path("/dev/shm") / name


@pytest.mark.parametrize("dies", ["host", "both"])
def test_a_folder_that_vanishes_is_made_anew_with_all_that_was_in_it(
    tmp_path: Path, dies: str
) -> None:
    """As at the end of a login: noticed with the next thing, and the old ones are not lost."""
    names = [f"probate-test-{secrets.token_hex(8)}" for _ in range(3)]
    state = tmp_path / "state"
    with JournalHost(MAKES, state) as host:
        assert host.line() == "up"
        paths = [make(host, name) for name in names[:2]]
        first = host.folder
        shutil.rmtree(state)
        paths.append(make(host, names[2]))
        assert host.folder != first

        if dies == "both":
            kill_all(reaper_of(host.process.pid), host.process.pid)
        host.kill()
        if dies == "both":
            orchestrator = ResourceOrchestrator().discover(only=["memory"])
            (account,) = sweep(orchestrator, str(state))
            assert [row.outcome for row in account.rows] == ["released"] * 3
        wait_until_gone(*paths)


def test_what_another_thread_deletes_as_the_folder_is_left_stays_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits until all rows are where the journal goes on, and has its own deleted there."""
    journal = HostJournal(str(tmp_path / "state"), has_reaper=False)
    journal.open()
    first = journal.intend("memory", 0, Named("the first", {}, lambda _: {}))
    other = threading.Thread(target=first.delete)
    copy_to = LoggedStore.copy_to

    def copy_and_wait(store: LoggedStore, folder: str) -> LoggedStore:
        new = copy_to(store, folder)
        other.start()
        other.join(0.5)
        return new

    monkeypatch.setattr(LoggedStore, "copy_to", copy_and_wait)
    assert journal.folder is not None
    shutil.rmtree(journal.folder)
    second = journal.intend("memory", 0, Named("the second", {}, lambda _: {}))
    other.join()

    assert journal._store is not None
    assert [row["description"] for row in journal._store.rows()] == ["the second"]
    second.delete()
    journal.close()


# -- damage ------------------------------------------------------------------------


def store_with(tmp_path: Path, count: int = 40) -> tuple[Path, list[Path]]:
    """The store of a dead host, with so many files that it has left, and where these are."""
    things = tmp_path / "things"
    things.mkdir(exist_ok=True)
    paths = [things / f"x{number}" for number in range(count)]
    for path in paths:
        path.touch()
    rows = [row_of("files", path_identity(str(path))) for path in paths]
    return dead_store(tmp_path / "state", rows), paths


@pytest.mark.parametrize(
    "content",
    [bytes(1 << 15), b"\xff" * (1 << 15), random.Random(1).randbytes(1 << 15), b"text " * 9000],
    ids=["zeros", "ones", "random", "text"],
)
def test_a_store_of_something_else_is_set_aside(tmp_path: Path, content: bytes) -> None:
    """It is said in a line where it is; what it told of stays."""
    folder, paths = store_with(tmp_path)
    (folder / "data.mdb").write_bytes(content)

    (account,) = swept(folder.parent)

    assert account.state is HostState.UNREADABLE
    assert "its store is damaged" in account.text
    assert "\n" not in account.text
    assert (folder.parent / f"set-aside-{folder.name}" / "data.mdb").read_bytes() == content
    assert all(path.exists() for path in paths)
    assert swept(folder.parent) == []


def test_wherever_a_store_is_cut_off_nothing_else_is_removed(tmp_path: Path) -> None:
    """At each page, and within some: it is set aside, or what is left of it is settled."""
    folder, paths = store_with(tmp_path)
    whole = (folder / "data.mdb").read_bytes()
    kept = tmp_path / "kept"
    folder.rename(kept)
    for size in [*range(8192, len(whole), 4096), 8193, 12000, len(whole) - 1]:
        shutil.copytree(kept, folder)
        os.truncate(folder / "data.mdb", size)

        (account,) = swept(folder.parent)

        assert account.state in {HostState.UNREADABLE, HostState.SETTLED}
        if account.state is HostState.UNREADABLE:
            assert all(path.exists() for path in paths)
            shutil.rmtree(folder.parent / f"set-aside-{folder.name}")
        else:
            assert len(account.rows) == len(paths)
        for path in paths:
            path.touch()


def test_a_store_with_flaws_harms_nobody(tmp_path: Path) -> None:
    """Bytes changed at random: no hang, no crash, and things alike of others stay."""
    folder, _ = store_with(tmp_path)
    whole = (folder / "data.mdb").read_bytes()
    kept = tmp_path / "kept"
    folder.rename(kept)
    # As ours by their names, in the same folder, and with the same numbers at times.
    decoys = [tmp_path / "things" / f"x{number}" for number in range(40, 60)]
    for decoy in decoys:
        decoy.write_text("theirs")
    seed = random.randrange(1 << 30)
    generator = random.Random(seed)
    for _ in range(300 if os.environ.get("PROBATE_CHAOS") else 30):
        shutil.copytree(kept, folder)
        content = bytearray(whole)
        for _ in range(generator.randrange(1, 200)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        (folder / "data.mdb").write_bytes(content)

        (account,) = swept(folder.parent)

        assert account.state in {HostState.UNREADABLE, HostState.SETTLED}, seed
        assert all(decoy.read_text() == "theirs" for decoy in decoys), seed
        for left in folder.parent.iterdir():
            shutil.rmtree(left)


@pytest.mark.parametrize(
    "header",
    [
        '{"readable_since": "x", "pid": 1, "command": []}',
        '{"readable_since": 1, "pid": 1, "command": []}',
        '{"readable_since": 1, "pid": "x", "command": [1], "boot": "another"}',
        '{"readable_since": 1, "pid": 1, "command": [], "boot": "BOOT", "handle": 7}',
        '{"readable_since": 1, "pid": 1, "command": [], "boot": "BOOT", "handle": "x:zz"}',
        "[" * 100_000,
    ],
)
def test_a_header_that_makes_no_sense_is_set_aside(tmp_path: Path, header: str) -> None:
    """Whatever is missing in it, or is of another sort: nothing raises, and nothing is removed."""
    folder, paths = store_with(tmp_path, 2)
    (folder / "host.json").write_text(header.replace("BOOT", boot_id()))

    (account,) = swept(folder.parent)

    assert (account.state, "header cannot be read" in account.text) == (HostState.UNREADABLE, True)
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("is_store", [True, False], ids=["a store in it", "nothing in it"])
def test_a_folder_that_others_may_enter_is_not_looked_into_and_named(
    tmp_path: Path, is_store: bool
) -> None:
    """It was said that nothing is left, where nobody had looked; of what has no store, it is so."""
    folder, paths = store_with(tmp_path, 2)
    place = folder.parent
    if not is_store:
        shutil.rmtree(folder)
    place.chmod(0o755)

    ran = run_sweep(place)
    assert all(path.exists() for path in paths)
    nothing = "nothing is left of any host that has died\n"
    if is_store:
        [account] = swept(place)
        assert account.state is HostState.UNREADABLE
        assert f"others may enter {place}: chmod 700 it" in account.text
        assert (ran.returncode, account.text in ran.stdout, nothing in ran.stdout) == (
            1,
            True,
            False,
        )
        place.chmod(0o700)
        [account] = swept(place)
        assert [row.outcome for row in account.rows] == ["released"] * 2
    else:
        assert (ran.returncode, ran.stdout, swept(place)) == (0, nothing, [])


def test_of_what_another_settles_it_is_not_said_that_nothing_is_left(tmp_path: Path) -> None:
    """It takes as long as the slowest of its things; until then, it is there."""
    folder, paths = store_with(tmp_path, 2)
    with (folder / LOCK).open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = run_sweep(folder.parent)

    assert (ran.returncode, ran.stderr) == (3, "")
    assert "being settled" in ran.stdout
    assert "nothing is left" not in ran.stdout
    assert all(path.exists() for path in paths)


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    """Nor is a place that is not there: nothing was ever in it."""
    (tmp_path / "file").touch()

    [account] = swept(tmp_path / "file")

    assert (account.state, account.store) == (HostState.UNREADABLE, str(tmp_path / "file"))
    assert swept(tmp_path / "none") == []


def test_who_is_killed_as_it_removes_a_store_leaves_none_that_seems_whole(tmp_path: Path) -> None:
    """All was given back, and the next sweep removes what is left of it, which is no host's."""
    folder, paths = store_with(tmp_path, 2)

    def killed() -> None:
        orchestrator = ResourceOrchestrator().discover(only=["files"])
        unlink = os.unlink

        def unlink_one(name: str, *, dir_fd: int | None = None) -> None:
            unlink(name, dir_fd=dir_fd)
            # In a quarantine a thing is called by the number of its row.
            if not name.isdigit():
                os.kill(os.getpid(), signal.SIGKILL)

        os.unlink = unlink_one  # type: ignore[assignment]  # as shutil calls it
        sweep(orchestrator, str(folder.parent))

    assert exit_code_of_fork(killed) == -signal.SIGKILL
    assert not any(path.exists() for path in paths)
    assert len(list(folder.parent.iterdir())) == 1

    assert swept(folder.parent) == []
    assert list(folder.parent.iterdir()) == []


def test_rows_that_make_no_sense_are_set_aside(tmp_path: Path) -> None:
    """Another state, no identity, no text: all or nothing, so that nothing is half understood."""
    for row in (
        {"kind": "files"},
        {**row_of("files", {}), "state": "unheard of"},
        {**row_of("files", {}), "identity": 7},
        {**row_of("files", {}), "description": None},
    ):
        folder = dead_store(tmp_path / "state", [row])
        (account,) = swept(folder.parent)

        assert account.state is HostState.UNREADABLE
        assert "rows cannot be read" in account.text


def test_an_identity_that_makes_no_sense_is_kept(tmp_path: Path) -> None:
    """Each kind fails on its own, and says so; the others of the store are given back."""
    path = tmp_path / "x"
    path.touch()
    rows = [row_of("files", path_identity(str(path))), row_of("files", {"path": 7})]
    folder = dead_store(tmp_path / "state", rows)

    (account,) = swept(folder.parent)

    assert [row.outcome for row in account.rows] == [Outcome.FAILED, Outcome.RELEASED]
    assert not path.exists()
