"""What is moved to be removed is found again, and what is another's gets back where it was."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attackers import ext4_image, mount_image
from children import exit_code_of_fork
from journal_stores import dead_store, row_of
from mount_namespace import enter_mount_namespace, mount_tmpfs

from probate import (
    BusyResourceError,
    Outcome,
    RefusedResourceError,
    ResourceOrchestrator,
    ResourceRecord,
)
from probate.journal import path_identity, quarantine, reclaim_path
from probate.journal.pinnedfolders import PinnedFolders
from probate.journal.quarantine import quarantine_name
from probate.settlement.settling import settle
from probate.system.clib import libc

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.settlement import HostAccount


def record_of(path: Path, **more: object) -> ResourceRecord:
    identity = {**path_identity(str(path)), "uid": os.geteuid(), **more}
    return ResourceRecord(kind="files", description="x", os_pid=1, identity=identity)


def settled(store: Path) -> HostAccount:
    return settle(store, ResourceOrchestrator().discover(only=["files"]))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the things are; the stores are beside it."""
    folder = tmp_path / "things"
    folder.mkdir()
    return folder


def store_of(path: Path) -> Path:
    """The store of a dead host that had made what is there."""
    return dead_store(path.parents[1] / "state", [row_of("files", path_identity(str(path)))])


def killed_in(store: Path, prepare: Callable[[], None]) -> None:
    """Have a settlement killed at a moment that is prepared."""

    def child() -> None:
        orchestrator = ResourceOrchestrator().discover(only=["files"])
        prepare()
        settle(store, orchestrator)

    assert exit_code_of_fork(child) == -signal.SIGKILL


def die(*_: object, **__: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def dies_before_the_move() -> None:
    vars(quarantine)["_has_moved"] = die


def dies_after_the_move() -> None:
    vars(quarantine)["_unlink"] = die


def dies_after_the_removal() -> None:
    vars(quarantine)["suppress"] = die


@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize(
    ("prepare", "outcome"),
    [
        (dies_before_the_move, "released"),
        (dies_after_the_move, "released"),
        (dies_after_the_removal, "already gone"),
    ],
)
def test_a_settlement_that_is_killed_leaves_no_trace(
    place: Path, prepare: Callable[[], None], outcome: str, *, is_folder: bool
) -> None:
    """The next one finds what was moved, and the folder that it was moved to."""
    path = place / "x"
    if is_folder:
        path.mkdir()
        (path / "below").touch()
    else:
        path.touch()
    store = store_of(path)
    killed_in(store, prepare)
    assert [each.name for each in place.glob(".probate-*")] == [quarantine_name(store.name)]

    (row,) = settled(store).rows
    assert row.outcome == outcome
    assert list(place.iterdir()) == []
    assert not store.exists()


def test_all_things_of_a_host_in_a_folder_have_one_quarantine(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made with the first, and removed with the last; a folder more has one more."""
    (place / "below").mkdir()
    paths = [place / f"x{number}" for number in range(9)] + [place / "below" / "x"]
    for path in paths:
        path.touch()
    rows = [row_of("files", path_identity(str(path))) for path in paths]
    store = dead_store(place.parent / "state", rows)
    made: list[str] = []
    mkdir = os.mkdir

    def noting(name: str, *arguments: Any, **options: Any) -> None:
        made.append(name)
        mkdir(name, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", noting)
    assert [row.outcome for row in settled(store).rows] == ["released"] * 10
    assert made == [quarantine_name(store.name)] * 2
    assert [each.name for each in place.rglob("*")] == ["below"]


def test_what_is_missing_is_looked_for_in_the_quarantine_that_is_open(place: Path) -> None:
    """Also where it was opened for another thing before; it is let go of with the rest."""
    for name in ("first", "second", "third"):
        (place / name).touch()
    names = {each: f".probate-0123/{each}" for each in ("first", "second", "third")}
    records = [record_of(place / name, quarantine=names[name]) for name in names]
    # Somebody was killed when he had moved the second, and a successor has its name.
    (place / ".probate-0123").mkdir(0o700)
    (place / "second").rename(place / ".probate-0123" / "second")
    (place / "second").write_text("theirs")
    (place / "third").unlink()
    before = len(list(Path("/proc/self/fd").iterdir()))

    with PinnedFolders.of_this_thread():
        outcomes = [reclaim_path(record, dry_run=False) for record in records]

    assert outcomes == [Outcome.RELEASED, Outcome.RELEASED, Outcome.ALREADY_GONE]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert {each.name: each.read_text() for each in place.iterdir()} == {"second": "theirs"}


@pytest.mark.parametrize("has_room", [True, False])
def test_in_a_quarantine_of_several_each_is_found_by_its_own_row(
    place: Path, monkeypatch: pytest.MonkeyPatch, *, has_room: bool
) -> None:
    """Two things had one name, one after the other; a third is of another name.

    Killed as it has moved the first one of them: the rows of the others neither take it for theirs,
    nor put it back under their names.
    """
    path = place / "x"
    rows = []
    for name in ("x", "x", "y"):
        (place / name).unlink(missing_ok=True)
        (place / name).write_text("ours")
        rows.append(row_of("files", path_identity(str(place / name))))
    store = dead_store(place.parent / "state", [rows[1], rows[0], rows[2]])

    def prepare() -> None:
        unlink = quarantine._unlink

        def second(folder: int, name: str, *, is_folder: bool) -> None:
            vars(quarantine)["_unlink"] = die
            unlink(folder, name, is_folder=is_folder)

        vars(quarantine)["_unlink"] = second
        if not has_room:
            monkeypatch.setattr(os, "mkdir", full)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    killed_in(store, prepare)
    name = quarantine_name(store.name)
    assert not path.exists()
    assert [each.read_text() for each in place.glob(f"{name}/1" if has_room else f"{name}-1")] == [
        "ours"
    ]

    outcomes = [row.outcome for row in settled(store).rows]
    assert outcomes == ["already gone", "already gone", "released"]
    assert list(place.iterdir()) == []
    assert not store.exists()


def test_what_was_another_s_is_put_back_by_the_next(place: Path) -> None:
    """Moved as it took the name at that moment, by a settlement that was killed then."""
    path = place / "x"
    path.write_text("ours")
    store = store_of(path)

    def prepare() -> None:
        has_moved = quarantine._has_moved

        def late(*arguments: Any) -> bool:
            path.unlink()
            path.write_text("theirs")
            has_moved(*arguments)
            return bool(die())

        vars(quarantine)["_has_moved"] = late

    killed_in(store, prepare)
    assert not path.exists()

    (row,) = settled(store).rows
    assert row.outcome == "already gone"
    assert [each.name for each in place.iterdir()] == ["x"]
    assert path.read_text() == "theirs"


def test_two_successors_at_once_are_both_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second one is, is said; it is put back when the name is free."""
    path = place / "x"
    path.write_text("ours")
    store = store_of(path)
    has_moved = quarantine._has_moved

    def between(*arguments: Any) -> bool:
        path.unlink()
        path.write_text("first")
        monkeypatch.setattr(quarantine, "_has_moved", has_moved)
        moved = has_moved(*arguments)
        path.write_text("second")
        return moved

    monkeypatch.setattr(quarantine, "_has_moved", between)
    (row,) = settled(store).rows
    (hidden,) = place.glob(".probate-*/1")
    assert row.outcome == "failed"
    assert str(hidden) in row.text
    assert (path.read_text(), hidden.read_text()) == ("second", "first")

    (row,) = settled(store).rows
    assert (row.outcome, row.tries) == ("failed", 2)
    path.unlink()
    (row,) = settled(store).rows
    assert row.outcome == "already gone"
    assert [each.name for each in place.iterdir()] == ["x"]
    assert path.read_text() == "first"


def test_a_folder_of_others_is_no_quarantine(place: Path) -> None:
    """One of that name which others may enter is left as it is, and nothing is moved there."""
    path = place / "x"
    path.touch()
    store = store_of(path)
    (place / quarantine_name(store.name)).mkdir(0o755)

    (row,) = settled(store).rows
    assert row.outcome == "refused"
    assert "is in the way" in row.text
    assert len(list(place.iterdir())) == 2


def test_who_removes_the_quarantine_is_told_from_who_removes_the_thing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BUSY, to be tried again: what there is to remove is there still."""
    path = place / "x"
    path.touch()
    record = record_of(path)
    has_moved = quarantine._has_moved

    def without_target(*arguments: Any) -> bool:
        (made,) = place.glob(".probate-*")
        made.rmdir()
        return has_moved(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(quarantine, "_has_moved", without_target)
        with pytest.raises(BusyResourceError):
            reclaim_path(record, dry_run=False)

    assert path.exists()
    assert reclaim_path(record, dry_run=False) is Outcome.RELEASED


@pytest.mark.timeout(30)
def test_a_row_whose_path_is_not_absolute_is_of_nothing(place: Path) -> None:
    """As nobody writes it; and whoever settles is not kept looking above it for ever."""
    (place / "x").touch()
    identity = {"path": "x", "uid": os.geteuid()}
    record = ResourceRecord(kind="files", description="x", os_pid=1, identity=identity)

    assert reclaim_path(record, dry_run=False) is Outcome.ALREADY_GONE


class OldFileSystem:
    """The C library over a file system that knows no RENAME_NOREPLACE, such as NFS."""

    def renameat2(self, *_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


def test_without_a_rename_that_replaces_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is removed all the same, and another's put back, but not over a newer one."""
    path = place / "x"
    path.touch()
    monkeypatch.setattr(quarantine, "libc", OldFileSystem)

    assert reclaim_path(record_of(path), dry_run=False) is Outcome.RELEASED

    path.touch()
    record = record_of(path)
    rename = os.rename

    def late(*arguments: Any, **options: Any) -> None:
        path.unlink()
        path.write_text("theirs")
        rename(*arguments, **options)

    monkeypatch.setattr(os, "rename", late)
    assert reclaim_path(record, dry_run=False) is Outcome.ALREADY_GONE
    assert [each.name for each in place.iterdir()] == ["x"]
    assert path.read_text() == "theirs"


@pytest.mark.needs_root(reason="mounts a file system without room, for itself")
def test_a_full_file_system_keeps_nothing_from_being_removed(place: Path) -> None:
    """Not even a folder can be made there: it is what is removed that makes room."""

    def child() -> None:
        enter_mount_namespace()
        mount_tmpfs(place, "nr_inodes=4")
        records = []
        for number in range(3):
            (place / f"x{number}").touch()
            records.append(record_of(place / f"x{number}"))
        with pytest.raises(OSError, match="No space"):
            (place / "another").mkdir()
        assert reclaim_path(records[0], dry_run=False) is Outcome.RELEASED
        (place / "x0").write_text("theirs")
        assert reclaim_path(records[0], dry_run=False) is Outcome.ALREADY_GONE
        assert sorted(each.name for each in place.iterdir()) == ["x0", "x1", "x2"]
        assert reclaim_path(records[1], dry_run=False) is Outcome.RELEASED

    assert exit_code_of_fork(child) == 0


@pytest.mark.parametrize("is_random", [True, False])
def test_without_file_handles(
    place: Path, monkeypatch: pytest.MonkeyPatch, *, is_random: bool
) -> None:
    """A name that nobody else can have chosen is enough; any other is kept, and that is said."""
    real = libc()

    class WithoutHandles:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def name_to_handle_at(self, *_: object) -> int:
            ctypes.set_errno(errno.EOPNOTSUPP)
            return -1

    monkeypatch.setattr("probate.journal.handles.libc", WithoutHandles)
    path = place / "x"
    path.touch()
    record = record_of(path, is_random=is_random)
    assert record.identity["handle"] is None

    if is_random:
        assert reclaim_path(record, dry_run=False) is Outcome.RELEASED
        assert not path.exists()
    else:
        with pytest.raises(RefusedResourceError, match="gives no handles"):
            reclaim_path(record, dry_run=False)
        assert path.exists()


# -- mounts ------------------------------------------------------------------------


def in_mount_namespace(test: Callable[[], None]) -> None:
    def child() -> None:
        enter_mount_namespace()
        test()

    assert exit_code_of_fork(child) == 0


def umount(path: Path) -> None:
    subprocess.run(["umount", path], check=True)


@pytest.mark.needs_root(reason="mounts, for itself")
@pytest.mark.parametrize("what", ["over the folder", "over the thing", "above the folder"])
def test_what_is_mounted_over_it_is_left_alone(place: Path, what: str) -> None:
    """And the thing is kept, and said to be, until it is to be seen again."""

    def test() -> None:
        folder = place / "folder"
        folder.mkdir()
        path = folder / "x"
        path.write_text("ours")
        record = record_of(path)
        covered = {"over the folder": folder, "over the thing": path, "above the folder": place}
        if what == "over the thing":
            (place / "other").write_text("theirs")
            subprocess.run(["mount", "--bind", place / "other", path], check=True)
        else:
            mount_tmpfs(covered[what], "size=64k")
            folder.mkdir(exist_ok=True)
            path.write_text("theirs")
            if what == "above the folder":
                # Not even a folder of that name: nor is it gone.
                shutil.rmtree(folder)

        for dry_run in (True, False):
            with pytest.raises(RefusedResourceError, match="mounted"):
                reclaim_path(record, dry_run)
        if what != "above the folder":
            assert path.read_text() == "theirs"
        umount(covered[what])
        assert path.read_text() == "ours"
        assert reclaim_path(record, dry_run=False) is Outcome.RELEASED

    in_mount_namespace(test)


@pytest.mark.needs_root(reason="mounts, for itself")
@pytest.mark.parametrize("after", ["nothing", "another", "covered"])
def test_what_was_in_memory_is_gone_with_its_mount(place: Path, after: str) -> None:
    """As at the end of a login, and at the next one; while it is but covered, it is kept.

    So is what was mounted elsewhere, in a namespace that is not seen from here.
    """

    def test() -> None:
        mount_tmpfs(place, "size=64k")
        (place / "folder").mkdir()
        path = place / "folder" / "x"
        path.touch()
        record = record_of(path)
        if after != "covered":
            umount(place)
        if after != "nothing":
            mount_tmpfs(place, "size=64k")
            path.parent.mkdir()
            path.write_text("theirs")

        if after == "covered":
            with pytest.raises(RefusedResourceError, match="not mounted"):
                reclaim_path(record, dry_run=False)
        else:
            elsewhere = record.model_copy(
                update={"identity": {**record.identity, "mount_namespace": 1}}
            )
            with pytest.raises(RefusedResourceError, match="not mounted"):
                reclaim_path(elsewhere, dry_run=False)
            assert reclaim_path(record, dry_run=False) is Outcome.ALREADY_GONE
        if after != "nothing":
            assert path.read_text() == "theirs"

    in_mount_namespace(test)


@pytest.mark.needs_root(reason="mounts file systems of its own, for itself")
def test_two_disks_with_one_root_are_told_apart(tmp_path: Path) -> None:
    """On ext4 all roots have the same number, and the same handle."""

    def test() -> None:
        place = tmp_path / "mounted"
        images = [ext4_image(tmp_path / name) for name in ("one", "two")]
        place.mkdir()
        mount_image(images[0], place)
        (place / "x").touch()
        record = record_of(place / "x")
        handle = path_identity(str(place / "x"))["folder"]
        umount(place)
        mount_image(images[1], place)
        (place / "x").touch()
        assert path_identity(str(place / "x"))["folder"] == handle

        with pytest.raises(RefusedResourceError, match="not mounted"):
            reclaim_path(record, dry_run=False)
        umount(place)
        mount_image(images[0], place)
        assert reclaim_path(record, dry_run=False) is Outcome.RELEASED
        umount(place)

    for command in ("mkfs.ext4", "losetup"):
        if shutil.which(command) is None:
            pytest.skip(f"no {command} here")
    in_mount_namespace(test)
