"""A named semaphore is as sem_open(3) makes it, but for the name that its file has before."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import posix_ipc
import pytest

from probate_ipc import semfile

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def name() -> Iterator[str]:
    """A name of nobody's; whatever has it after the test is removed, failed or not."""
    drawn = f"/probate-test-{secrets.token_hex(8)}"
    yield drawn
    file_of(drawn).unlink(missing_ok=True)


def file_of(name: str) -> Path:
    return Path(f"/dev/shm/sem.{name[1:]}")


def test_its_file_has_its_name_or_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a process that is killed in between leaves nothing, or what is in the journal."""
    link = os.link
    links: list[int] = []

    def noting_link(source: str, path: str, *, src_dir_fd: int) -> None:
        links.append(os.fstat(src_dir_fd).st_nlink)
        link(source, path, src_dir_fd=src_dir_fd)
        links.append(os.fstat(src_dir_fd).st_nlink)

    monkeypatch.setattr(os, "link", noting_link)
    native = semfile.create(name, str(file_of(name)), 0o600, 2)
    native.unlink()
    native.close()

    assert links == [0, 1]


@pytest.mark.parametrize("umask", [0, 0o022, 0o277])
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o400, 0])
def test_it_is_what_the_c_library_makes(name: str, mode: int, umask: int) -> None:
    """Its size, its permissions, and its value, also where its maker may not open it again."""
    path = file_of(name)

    def made(native: posix_ipc.Semaphore) -> Any:
        status, before = path.stat(), native.value
        native.release()
        after = native.value
        native.unlink()
        native.close()
        return before, after, status.st_size, stat.S_IMODE(status.st_mode)

    before = os.umask(umask)
    try:
        ours = made(semfile.create(name, str(path), mode, 2))
        theirs = made(posix_ipc.Semaphore(name, posix_ipc.O_CREX, mode, 2))
    finally:
        os.umask(before)

    assert ours == theirs


def test_a_taken_name_stays_another_s(name: str) -> None:
    """As with O_EXCL."""
    theirs = posix_ipc.Semaphore(name, posix_ipc.O_CREX, initial_value=5)
    try:
        with pytest.raises(FileExistsError):
            semfile.create(name, str(file_of(name)), 0o600, 1)
        assert theirs.value == 5
    finally:
        theirs.unlink()
        theirs.close()


def test_where_files_have_names_from_the_start_the_c_library_makes_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A /dev/shm on a file system without O_TMPFILE, as in some containers."""

    def refusing_open(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing_open)
        native = semfile.create(name, str(file_of(name)), 0o600, 3)
    value = native.value
    native.unlink()
    native.close()

    assert value == 3


def test_one_that_cannot_be_opened_leaves_no_file(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for want of descriptors or memory."""

    def refusing_open(_name: str) -> posix_ipc.Semaphore:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(posix_ipc, "Semaphore", refusing_open)
        with pytest.raises(OSError, match="Too many open files"):
            semfile.create(name, str(file_of(name)), 0o600, 3)

    assert not file_of(name).exists()
