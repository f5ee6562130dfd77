"""FIFOs and temporary things whose host has died are removed, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from journal_estates import Estate
from journal_hosts import PATIENCE

from probate import Outcome, ProcessManager, RefusedResourceError, ResourceRecord
from probate.journal import path_identity
from probate.journal.users import look_again
from probate_files.noted import reclaim

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate_files import FileManager

#: All that is removed with its owner, made and adopted; the tree has a link out of it.
ALL = Estate(
    "files",
    """
    import tempfile

    paths.append(kind.mkfifo(process.pid, folder / "fifo"))
    paths.append(kind.temporary_file(process.pid, directory=folder, suffix=".made").name)
    tree = kind.temporary_directory(process.pid, directory=folder)
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_text("contents")
    (tree / "a" / "link").symlink_to("/")
    paths.append(tree)
    file = tempfile.NamedTemporaryFile(dir=folder)
    adopted = tempfile.TemporaryDirectory(dir=folder)
    for each in (file, adopted):
        manager.orchestrator.adopt(process.pid, each)
        paths.append(each.name)
    """,
)
FILE = Estate("files", "paths.append(kind.temporary_file(process.pid, directory=folder).name)")
FOLDER = Estate(
    "files",
    """
    paths.append(kind.temporary_directory(process.pid, directory=folder))
    (paths[0] / "below").write_text("")
    """,
)
#: Opened, locked, written and kept: the names are a user's.
USERS_OWN = Estate(
    "files",
    """
    file = kind.open(process.pid, folder / "output", "w")
    kind.lock(process.pid, kind.open(process.pid, folder / "lock", "w"))
    kind.open_fd(process.pid, folder / "pid", os.O_CREAT | os.O_EXCL | os.O_RDWR)
    kind.memfd(process.pid)
    file.write("result")
    file.flush()
    """,
)


@pytest.fixture(autouse=True)
def _look_anew() -> None:
    """One look at all processes serves for a moment: not for that of another test."""
    look_again()


def test_a_killed_worker(tmp_path: Path) -> None:
    """The host removes them at once."""
    ALL.goes_with_a_killed_worker(tmp_path)


def test_a_killed_host(tmp_path: Path) -> None:
    """The reaper removes them: a folder as a tree, its links not followed."""
    ALL.goes_with_a_killed_host(tmp_path)


def test_a_killed_host_and_reaper(tmp_path: Path) -> None:
    """A sweep removes them."""
    ALL.goes_with_host_and_reaper(tmp_path)


def test_what_is_removed_in_time(tmp_path: Path) -> None:
    """It leaves nothing to give back."""
    ALL.leaves_no_row_in_time(tmp_path)


def test_a_users_own_files_are_never_removed(tmp_path: Path) -> None:
    """What was opened, locked or exclusively made is not noted, so that nobody can remove it."""
    USERS_OWN.takes_no_store(tmp_path)

    names = sorted(each.name for each in (tmp_path / "things").iterdir())
    assert names == ["lock", "output", "pid"]
    assert (tmp_path / "things" / "output").read_text() == "result"


@pytest.mark.parametrize("estate", [FILE, FOLDER], ids=["file", "folder"])
def test_a_successor_at_the_path_is_left_alone(tmp_path: Path, estate: Estate) -> None:
    """And what was moved away to be kept stays as well."""
    with estate.host(tmp_path) as held:
        held.kill_both()
        (path,) = held.paths
        kept = path.rename(path.with_name("kept"))
        if estate is FILE:
            path.write_text("theirs")
        else:
            path.mkdir()
            (path / "theirs").touch()

        assert held.row().outcome == "already gone"
        assert path.read_text() == "theirs" if estate is FILE else (path / "theirs").exists()
        assert kept.exists()


def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    """Its bytes are written out in the account; it is removed by what they are."""
    odd = Estate(
        "files",
        """
        odd = os.fsdecode(os.fsencode(folder) + b"/\\xff")
        os.mkdir(odd)
        kind.temporary_file(process.pid, directory=odd)
        """,
    )
    with odd.host(tmp_path) as held:
        held.kill_both()

        row = held.row()
        assert row.outcome == "released"
        assert r"/\udcff/probate-" in row.description
        assert list((tmp_path / "things").rglob("probate-*")) == []


# -- without a crash: what a record says -----------------------------------------


def record_of(
    path: Path, state: Literal["intent", "confirmed"] = "confirmed", **changes: object
) -> ResourceRecord:
    """What a journal would have of the thing that is there."""
    identity: dict[str, object] = {"uid": os.geteuid(), "path": str(path)}
    if state == "confirmed":
        identity |= path_identity(str(path))
    return ResourceRecord(
        kind="files", description="x", os_pid=1, identity={**identity, **changes}, state=state
    )


def waiting(*, cwd: Path, script: str) -> subprocess.Popen[str]:
    """Another program, which has done what a script does."""
    script += "\nimport sys; print('up', flush=True); sys.stdin.read()"
    program = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    return program


#: The map has a descriptor of its own, which is closed as well.
MAPS_BELOW = """
import mmap, os
file = open('folder/below/file', 'w+')
file.truncate(1)
map = mmap.mmap(file.fileno(), 0)
file.close()
os.closerange(3, 99)
"""


@pytest.mark.parametrize(
    ("thing", "script"),
    [
        ("file", "file = open('file')"),
        ("file", "import mmap; f = open('file', 'r+'); m = mmap.mmap(f.fileno(), 0)"),
        ("fifo", "import os; fd = os.open('fifo', os.O_RDWR)"),
        ("folder", "import os; os.chdir('folder')"),
        ("folder", "import os; os.chdir('folder/below')"),
        ("folder", "file = open('folder/below/file')"),
        ("folder", MAPS_BELOW),
        ("folder", "import socket; s = socket.socket(1); s.bind('folder/below/socket')"),
    ],
    ids=[
        "file-open",
        "file-mapped",
        "fifo-open",
        "cwd",
        "cwd-below",
        "open-below",
        "mapped-below",
        "bound-below",
    ],
)
def test_what_is_in_use_is_kept(tmp_path: Path, thing: str, script: str) -> None:
    """REFUSED, with who uses it, and nothing of it is touched; removed when nobody does."""
    (tmp_path / "file").write_text("contents")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "folder" / "below" / "file").touch()
    path = tmp_path / thing
    record = record_of(path)
    script = script.replace("'folder/below/socket'", repr(str(path / "below" / "socket")))
    with waiting(cwd=tmp_path, script=script) as user:
        for dry_run in (True, False):
            with pytest.raises(RefusedResourceError, match=f"still in use by {user.pid}$"):
                reclaim(record, dry_run)
        assert path.exists()
        assert (tmp_path / "folder" / "below" / "file").exists()
        user.kill()
        user.wait(PATIENCE)
        look_again()

        assert reclaim(record, False) is Outcome.RELEASED
        assert not path.exists()


def test_a_mount_in_a_folder_is_not_crossed(
    tmp_path: Path, mount: Callable[[Path, Path], None]
) -> None:
    """Nothing of the folder is touched, and it says what to unmount."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("precious")
    folder = tmp_path / "folder"
    (folder / "a mount").mkdir(parents=True)
    (folder / "ours").touch()
    record = record_of(folder)
    mount(precious, folder / "a mount")

    with pytest.raises(RefusedResourceError, match=f"unmount {folder}/a mount$"):
        reclaim(record, False)
    assert (precious / "file").read_text() == "precious"
    assert sorted(each.name for each in folder.iterdir()) == ["a mount", "ours"]


def test_a_mount_that_is_not_seen_before_is_not_crossed_either(
    tmp_path: Path, mount: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes after the look: what is mounted stays, and the folder where it was."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("precious")
    folder = tmp_path / "folder"
    (folder / "mnt").mkdir(parents=True)
    record = record_of(folder)
    mount(precious, folder / "mnt")
    monkeypatch.setattr("probate.journal.users.mounts", list)

    with pytest.raises(RefusedResourceError, match=f"unmount {folder}/mnt"):
        reclaim(record, False)
    assert (precious / "file").read_text() == "precious"
    assert (folder / "mnt").is_dir()


def test_what_cannot_be_removed_is_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unlink that fails puts it back, so that the next sweep finds it."""
    path = tmp_path / "file"
    path.write_text("contents")
    record = record_of(path)
    with monkeypatch.context() as patched:

        def unlink(*_: object, **__: object) -> None:
            raise PermissionError("no")

        patched.setattr(os, "unlink", unlink)
        with pytest.raises(PermissionError, match="no"):
            reclaim(record, False)

    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert reclaim(record, False) is Outcome.RELEASED
    assert list(tmp_path.iterdir()) == []


def test_whoever_waits_for_the_other_side_of_a_fifo_gets_through(tmp_path: Path) -> None:
    """A dry run leaves it waiting; the removal lets it read its end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    record = record_of(path)
    read: list[str] = []
    thread = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    thread.start()

    assert reclaim(record, True) is Outcome.RELEASED
    thread.join(0.2)
    assert thread.is_alive()
    assert reclaim(record, False) is Outcome.RELEASED
    thread.join(PATIENCE)
    assert read == [""]


def test_what_was_never_confirmed(tmp_path: Path) -> None:
    """A random name is removed; one that was asked for may be anybody's, and stays."""
    path = tmp_path / "thing"
    for is_random in (True, False):
        record = record_of(path, "intent", is_random=is_random)
        assert reclaim(record, False) is Outcome.ALREADY_GONE
        path.write_text("")
        if is_random:
            assert reclaim(record, False) is Outcome.RELEASED
        else:
            with pytest.raises(RefusedResourceError, match="name was not its own"):
                reclaim(record, False)
    assert path.exists()


def test_the_names_of_temporary_things(tmp_path: Path, files: FileManager) -> None:
    """The journal has them before they are made; they are as tempfile's are."""
    state = tmp_path / "state"
    place = tmp_path / "things"
    place.mkdir()
    with ProcessManager.builder().with_journal(state, reaper=False).build() as manager:
        files = manager.orchestrator["files"].manager
        process = manager.create_process("owner")
        file = files.temporary_file(process.pid, prefix="a-", suffix=".b", directory=place)
        folder = files.temporary_directory(process.pid, prefix="c-", suffix=".d", directory=place)

        for path in (Path(file.name), folder):
            assert path.parent == place
        assert file.name.removeprefix(f"{place}/a-").removesuffix(".b").isalnum()
        assert folder.name.removeprefix("c-").removesuffix(".d").isalnum()
        assert (Path(file.name).stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (
            0o600,
            0o700,
        )
    assert list(place.iterdir()) == []
    assert list(state.iterdir()) == []
