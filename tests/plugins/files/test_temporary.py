"""Temporary files and folders: they go with their owner, and nothing else does."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from files_kernel import is_open
from threads import in_thread

from probate import NotOwnedError, Outcome, RefusedResourceError
from probate_files.pinned import PinnedPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import Process, ProcessManager
    from probate_files import FileManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_a_temporary_file_goes_with_its_owner(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Others may use the path meanwhile; the owner's end closes and unlinks it."""
    file = files.temporary_file(
        process.pid, "w+", encoding="utf-8", suffix=".txt", prefix="note-", directory=tmp_path
    )
    file.write("hello")
    file.flush()
    (path,) = tmp_path.iterdir()

    assert file.name == str(path)
    assert (path.name[:5], path.suffix) == ("note-", ".txt")
    assert path.read_text() == "hello"
    assert path.stat().st_mode & 0o777 == 0o600

    result = process.terminate()

    assert result.stats.by_type == {"files": 1}
    assert list(tmp_path.iterdir()) == []
    assert file.closed


def test_the_default_place_is_that_of_tempfile(process: Process, files: FileManager) -> None:
    """`tempfile.gettempdir()`, which heeds TMPDIR."""
    file = files.temporary_file(process.pid)
    folder = files.temporary_directory(process.pid)

    assert [str(Path(file.name).parent), str(folder.parent)] == [tempfile.gettempdir()] * 2

    process.terminate()

    assert not Path(file.name).exists()
    assert not folder.exists()


def test_closing_by_hand_unlinks(process: Process, files: FileManager, tmp_path: Path) -> None:
    """As the owner's end would."""
    file = files.temporary_file(process.pid, directory=tmp_path)
    files.close(process.pid, file)

    assert file.closed
    assert list(tmp_path.iterdir()) == []
    assert process.pid not in files.table


def test_a_file_that_was_closed_directly_still_loses_its_path(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Its path is ours to remove, whoever closed the file; unlinked too, it is already gone."""
    files.temporary_file(process.pid, directory=tmp_path).close()
    with files.temporary_file(process.pid, directory=tmp_path) as unlinked:
        Path(unlinked.name).unlink()

    result = process.terminate()

    assert result.is_success
    assert result.stats.resources_freed == 1
    assert list(tmp_path.iterdir()) == []


def test_the_path_of_a_temporary_file_is_left_to_its_successor(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Old server deleted its successor's path, the inode number recycled: pinned while compared."""
    file = files.temporary_file(process.pid, directory=tmp_path)
    inode = os.fstat(file.fileno()).st_ino
    path = Path(file.name)
    file.close()
    path.unlink()
    # File systems that hand out a freed inode number at once would do so here.
    path.write_text("successor's")

    assert path.stat().st_ino != inode

    result = process.terminate()

    assert result.is_success
    assert result.stats.resources_freed == 0
    assert path.read_text() == "successor's"


def test_a_file_that_was_renamed_is_kept_and_complete(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Written under a temporary name, then renamed: that is how a file comes to stay."""
    file = files.temporary_file(process.pid, "w", directory=tmp_path)
    file.write("kept")
    Path(file.name).rename(tmp_path / "final")

    result = process.terminate()

    assert result.is_success
    assert (tmp_path / "final").read_text() == "kept"


def test_a_folder_goes_with_its_tree_and_no_link_is_followed(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Links to folders outside are removed, what they lead to is not."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    folder = files.temporary_directory(process.pid, directory=tmp_path)
    (folder / "link").symlink_to(outside)
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "link").symlink_to(outside, target_is_directory=True)
    (folder / "a" / "file").touch()
    os.mkfifo(folder / "a" / "fifo")

    assert folder.stat().st_mode & 0o777 == 0o700

    result = process.terminate()

    assert shutil.rmtree.avoids_symlink_attacks
    assert result.stats.by_type == {"files": 1}
    assert list(tmp_path.iterdir()) == [outside]
    assert list(outside.iterdir()) == [outside / "precious"]


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_folder_that_is_not_in_its_place_is_already_gone(
    process: Process, files: FileManager, tmp_path: Path, how: str
) -> None:
    """Removed, there is nothing to do; renamed, it is kept."""
    folder = files.temporary_directory(process.pid, directory=tmp_path)
    (folder / "file").touch()
    if how == "removed":
        shutil.rmtree(folder)
    else:
        folder.rename(tmp_path / "kept")

    result = process.terminate()

    assert result.is_success
    assert result.stats.resources_freed == 0
    assert [each.name for each in tmp_path.rglob("*")] == (
        [] if how == "removed" else ["kept", "file"]
    )


@pytest.mark.parametrize("kind", ["file", "folder", "fifo"])
def test_what_was_swapped_is_refused_and_both_are_left_alone(
    process: Process, files: FileManager, tmp_path: Path, kind: str
) -> None:
    """Ours is elsewhere and something else in its place: not for us to judge which is wanted."""
    if kind == "file":
        path = Path(files.temporary_file(process.pid, directory=tmp_path).name)
    elif kind == "folder":
        path = files.temporary_directory(process.pid, directory=tmp_path)
    else:
        path = files.mkfifo(process.pid, tmp_path / "fifo")
    path.rename(tmp_path / "ours")
    path.mkdir()
    (path / "theirs").touch()

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.REFUSED]
    assert str(path) in result.errors[0].message
    assert (tmp_path / "ours").exists()
    assert (path / "theirs").exists()
    assert process.pid not in files.table


def test_a_folder_that_is_swapped_while_it_is_removed_costs_the_other_nothing(
    process: Process, files: FileManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tree is removed through what pins it: a path means another folder by then."""
    folder = files.temporary_directory(process.pid, directory=tmp_path)
    (folder / "deep").mkdir()
    (folder / "deep" / "file").touch()
    (folder / "file").touch()
    ours = folder.stat().st_ino
    is_in_place = PinnedPath.is_in_place

    def swap_after_the_look(pin: PinnedPath) -> bool:
        found = is_in_place(pin)
        monkeypatch.undo()
        folder.rename(tmp_path / "ours")
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").write_text("precious")
        (folder / "file").write_text("precious")
        return found

    monkeypatch.setattr(PinnedPath, "is_in_place", swap_after_the_look)

    result = process.terminate()

    assert (folder / "deep" / "file").read_text() == "precious"
    assert (folder / "file").read_text() == "precious"
    assert (tmp_path / "ours").stat().st_ino == ours
    assert list((tmp_path / "ours").iterdir()) == []
    assert [error.outcome for error in result.errors] == [Outcome.REFUSED]


def test_a_link_in_the_place_of_a_folder_is_not_followed(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Not even one that leads to the very folder."""
    folder = files.temporary_directory(process.pid, directory=tmp_path)
    (folder / "file").touch()
    folder.rename(tmp_path / "ours")
    folder.symlink_to(tmp_path / "ours")

    with pytest.raises(RefusedResourceError, match="both are left alone"):
        files.remove(process.pid, folder)

    assert (tmp_path / "ours" / "file").exists()
    assert folder.is_symlink()


def test_a_folder_goes_however_deep_it_is(process: Process, files: FileManager) -> None:
    """Deeper than the interpreter's stack (cpython#89727), a path and its descriptors reach."""
    # In memory: some disks take milliseconds for each.
    folder = files.temporary_directory(process.pid, directory="/dev/shm")
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=fd)
        below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT, dir_fd=fd))
    os.close(fd)

    result = process.terminate()

    assert str(result).endswith("1 resources freed, 0 bytes freed, 0 errors")
    assert not folder.exists()


def test_a_mount_in_a_folder_is_not_crossed(
    process: Process,
    files: FileManager,
    tmp_path: Path,
    mount: Callable[[Path, Path], None],
) -> None:
    """What was mounted in a temporary folder was deleted through it; by folder and by file."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("precious")
    folder = files.temporary_directory(process.pid, directory=tmp_path)
    (folder / "a" / "mnt").mkdir(parents=True)
    (folder / "b").mkdir()
    (folder / "b" / "file").touch()
    mount(precious, folder / "a" / "mnt")

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.REFUSED]
    assert f"unmount {folder}/a/mnt, then remove the folder" in result.errors[0].message
    assert (precious / "file").read_text() == "precious"
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_mounted_file_in_a_folder_is_left_alone(
    process: Process, files: FileManager, tmp_path: Path, mount: Callable[[Path, Path], None]
) -> None:
    """As above: the kernel itself refuses to unlink what something is mounted over (unlink(2))."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    folder = files.temporary_directory(process.pid, directory=tmp_path)
    (folder / "file").touch()
    mount(precious, folder / "file")

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "busy: 'file'" in result.errors[0].message
    assert precious.read_text() == "precious"


def test_what_cannot_be_removed_is_an_error_that_says_so(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """A file that somebody puts in while the rest is removed: ENOTEMPTY, and the folder stays."""
    folder = files.temporary_directory(process.pid, directory=tmp_path)
    for number in range(300):
        (folder / str(number)).touch()
    done = threading.Event()

    def litter() -> None:
        with contextlib.suppress(FileNotFoundError):
            while not done.is_set():
                (folder / "litter").touch()
                (folder / "more").touch()

    thread, _ = in_thread(litter)
    result = process.terminate()
    done.set()
    thread.join(5)

    # Either it was quick enough, or the account tells that it was not.
    assert result.is_success is not folder.exists()
    assert all("not empty" in error.message for error in result.errors)


def test_removing_by_hand_needs_the_owner_and_any_spelling_of_the_path(
    manager: ProcessManager,
    files: FileManager,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Path that was given, an equal one, or a string; relative to the working directory."""
    a, b = manager.create_process("a"), manager.create_process("b")
    folders = [files.temporary_directory(a.pid, directory=tmp_path) for _ in range(4)]
    monkeypatch.chdir(tmp_path)

    with pytest.raises(NotOwnedError):
        files.remove(b.pid, folders[0])

    files.remove(a.pid, folders[0])
    files.remove(a.pid, Path(str(folders[1])))
    files.remove(a.pid, str(folders[2]))
    files.remove(a.pid, folders[3].name)

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotOwnedError):
        files.remove(a.pid, folders[0])


def test_a_working_directory_that_changes_changes_nothing(
    process: Process, files: FileManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are made absolute when they are given."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    files.mkfifo(process.pid, "fifo")
    files.temporary_file(process.pid, directory=".")
    files.temporary_directory(process.pid, directory=".")
    monkeypatch.chdir(tmp_path / "elsewhere")

    result = process.terminate()

    assert result.stats.by_type == {"files": 3}
    assert [each.name for each in tmp_path.iterdir()] == ["elsewhere"]


def test_files_in_a_folder_of_the_same_owner_go_before_it(
    process: Process, files: FileManager
) -> None:
    """Newest first: each is closed and counted, then the folder is empty and goes."""
    folder = files.temporary_directory(process.pid)
    inner = files.temporary_file(process.pid, directory=folder)
    files.mkfifo(process.pid, folder / "fifo")

    result = process.terminate()

    assert result.is_success
    assert result.stats.by_type == {"files": 3}
    assert inner.closed
    assert not folder.exists()


def test_a_manager_that_is_dropped_keeps_no_pins(tmp_path: Path) -> None:
    """The O_PATH descriptors of paths go when nobody can ask for them any more."""
    from probate_files import FileManager

    files = FileManager()
    folder = files.temporary_directory(1, directory=tmp_path)
    before = [fd for fd in range(200) if is_open(fd)]
    del files
    gc.collect()

    assert len([fd for fd in range(200) if is_open(fd)]) == len(before) - 1
    assert folder.exists()
