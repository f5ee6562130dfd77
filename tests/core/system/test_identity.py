"""Descriptors are closed, and paths unlinked, only while they mean what they meant before."""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

import pytest
from files_kernel import is_open

from probate import Outcome
from probate.system import close_if_same, identify, is_still, path_of, unlink_if_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    #: Has a descriptor closed when the test is over.
    Own = Callable[[int], int]


@pytest.fixture
def own() -> Iterator[Own]:
    owned: set[int] = set()

    def keep(fd: int) -> int:
        owned.add(fd)
        return fd

    yield keep
    for fd in owned:
        if is_open(fd):
            os.close(fd)


def test_the_same_descriptor_is_closed(tmp_path: Path) -> None:
    """RELEASED, and the kernel has it no more; the second time it is ALREADY_GONE."""
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    identity = identify(fd)

    assert is_still(fd, identity)
    assert close_if_same(fd, identity) is Outcome.RELEASED
    assert not is_open(fd)
    assert not is_still(fd, identity)
    assert close_if_same(fd, identity) is Outcome.ALREADY_GONE
    with pytest.raises(OSError, match="Bad file descriptor"):
        identify(fd)


def another_file(tmp_path: Path, own: Own) -> list[int]:
    return [own(os.open(tmp_path / name, os.O_CREAT | os.O_RDWR)) for name in "ab"]


def another_mode(tmp_path: Path, own: Own) -> list[int]:
    (tmp_path / "file").touch()
    return [own(os.open(tmp_path / "file", mode)) for mode in (os.O_RDONLY, os.O_RDWR)]


def only_a_path(tmp_path: Path, own: Own) -> list[int]:
    return [own(os.open(tmp_path, flags)) for flags in (os.O_RDONLY, os.O_RDONLY | os.O_PATH)]


def the_other_end(_: Path, own: Own) -> list[int]:
    return [own(fd) for fd in os.pipe()]


def another_anonymous_inode(_: Path, own: Own) -> list[int]:
    with select.epoll() as epoll:
        return [own(os.dup(epoll.fileno())), own(os.eventfd(0))]


def another_socket(_: Path, own: Own) -> list[int]:
    return [own(end.detach()) for end in socket.socketpair()]


SUCCESSORS = [
    another_file, another_mode, only_a_path, the_other_end, another_anonymous_inode, another_socket,
]  # fmt: skip


@pytest.mark.parametrize("make", SUCCESSORS)
def test_a_successor_under_the_same_number_is_left_alone(
    make: Callable[[Path, Own], list[int]], tmp_path: Path, own: Own
) -> None:
    """Closed elsewhere, and the number given to another file: that one stays open."""
    fd, other = make(tmp_path, own)
    identity = identify(fd)
    os.dup2(other, fd)

    assert not is_still(fd, identity)
    assert close_if_same(fd, identity) is Outcome.ALREADY_GONE
    assert is_still(fd, identify(other))


def test_a_file_is_the_same_under_another_number_name_or_length(tmp_path: Path, own: Own) -> None:
    """What may change while a file is open does not make it another one."""
    path = tmp_path / "file"
    fd = own(os.open(path, os.O_CREAT | os.O_RDWR))
    identity = identify(fd)
    os.write(fd, b"longer")
    os.set_blocking(fd, False)
    path.rename(tmp_path / "renamed")

    assert is_still(fd, identity)
    assert is_still(own(os.dup(fd)), identity)
    assert path_of(fd) == f"{tmp_path}/renamed"

    (tmp_path / "renamed").unlink()

    assert is_still(fd, identity)


@pytest.mark.parametrize(
    ("flags", "mode"),
    [(os.O_RDONLY, "r"), (os.O_WRONLY, "w"), (os.O_RDWR, "rw"), (os.O_PATH, "path")],
)
def test_the_mode_is_how_it_was_opened(flags: int, mode: str, tmp_path: Path, own: Own) -> None:
    """Other flags change nothing of it."""
    (tmp_path / "file").touch()
    fd = own(os.open(tmp_path / "file", flags | os.O_CLOEXEC))

    assert identify(fd).mode == mode


def test_a_write_may_wait_on_pipes_and_sockets_only(tmp_path: Path, own: Own) -> None:
    """A regular file, a folder and an eventfd are no streams."""
    streams = [*the_other_end(tmp_path, own), *another_socket(tmp_path, own)]
    others = [*another_file(tmp_path, own), *another_anonymous_inode(tmp_path, own)]

    assert [identify(fd).is_stream for fd in streams] == [True] * 4
    assert [identify(fd).is_stream for fd in others] == [False] * 4


def test_the_kernels_name_of_what_has_no_path(own: Own) -> None:
    """A pipe by its inode; nothing for what is not open."""
    fd = the_other_end(None, own)[0]  # type: ignore[arg-type]  # it needs none

    assert path_of(fd) == f"pipe:[{os.fstat(fd).st_ino}]"

    os.close(fd)

    assert path_of(fd) == ""


def pinned(path: Path, own: Own) -> os.stat_result:
    """The status of what is there, whose inode no other file gets while it is open."""
    return os.fstat(own(os.open(path, os.O_PATH | os.O_NOFOLLOW)))


def test_the_same_path_is_unlinked(tmp_path: Path, own: Own) -> None:
    """RELEASED; the second time it is ALREADY_GONE."""
    path = tmp_path / "file"
    path.touch()
    status = pinned(path, own)

    assert unlink_if_same(str(path), status) is Outcome.RELEASED
    assert not path.exists()
    assert unlink_if_same(str(path), status) is Outcome.ALREADY_GONE


@pytest.mark.parametrize("is_renamed_over", [False, True], ids=["made anew", "renamed over"])
def test_a_successor_under_the_same_path_is_left_alone(
    is_renamed_over: bool, tmp_path: Path, own: Own
) -> None:
    """The pinned inode cannot be its, however quickly it came."""
    path = tmp_path / "file"
    path.write_text("ours")
    status = pinned(path, own)
    if is_renamed_over:
        (tmp_path / "other").write_text("another's")
        (tmp_path / "other").rename(path)
    else:
        path.unlink()
        path.write_text("another's")

    assert unlink_if_same(str(path), status) is Outcome.ALREADY_GONE
    assert path.read_text() == "another's"


def test_a_link_to_the_same_file_is_no_successor_but_a_symlink_is(tmp_path: Path, own: Own) -> None:
    """A symbolic link is a file of its own, which nobody gave us; a hard link is the file."""
    ours, symlink, link = (tmp_path / name for name in ("ours", "symlink", "link"))
    ours.touch()
    symlink.symlink_to(ours)
    link.hardlink_to(ours)
    status = pinned(ours, own)

    assert unlink_if_same(str(symlink), status) is Outcome.ALREADY_GONE
    assert unlink_if_same(str(link), status) is Outcome.RELEASED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "symlink"]


def test_a_symlink_of_ours_is_unlinked_and_not_what_it_points_to(tmp_path: Path, own: Own) -> None:
    """As lstat(2) and unlink(2) have it."""
    (tmp_path / "target").touch()
    symlink = tmp_path / "symlink"
    symlink.symlink_to(tmp_path / "target")

    assert unlink_if_same(str(symlink), pinned(symlink, own)) is Outcome.RELEASED
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_folder_that_is_gone_or_a_file_by_now_has_nothing_of_ours(
    tmp_path: Path, own: Own
) -> None:
    """ENOENT and ENOTDIR on the way are ALREADY_GONE."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    status = pinned(folder / "file", own)
    folder.rename(tmp_path / "elsewhere")

    assert unlink_if_same(f"{folder}/file", status) is Outcome.ALREADY_GONE

    folder.touch()

    assert unlink_if_same(f"{folder}/file", status) is Outcome.ALREADY_GONE
    assert (tmp_path / "elsewhere" / "file").exists()


def test_what_cannot_be_unlinked_is_raised(tmp_path: Path, own: Own) -> None:
    """unlink(2) takes no folders: the caller learns of it, and it is still there."""
    with pytest.raises(OSError, match=r"Is a directory|not permitted"):
        unlink_if_same(str(tmp_path), pinned(tmp_path, own))

    assert tmp_path.is_dir()
