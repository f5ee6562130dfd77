"""Numbers that were closed directly and mean another file by now: left alone, whatever had them."""

# ruff: noqa: SIM115  whoever adopts a file here closes it

from __future__ import annotations

import gc
import os
import tempfile
import threading
from typing import TYPE_CHECKING

import pytest
from files_kernel import is_open

from probate import AlreadyOwnedError, Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_files import FileManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def successor_of(fd: int, path: Path) -> int:
    """Close a number behind everybody's back, and have it mean another file."""
    os.close(fd)
    successor = os.open(path, os.O_RDWR | os.O_CREAT)

    assert successor == fd

    os.write(successor, b"0123456789")
    os.lseek(successor, 5, os.SEEK_SET)
    return successor


def assert_untouched(fd: int, path: Path) -> None:
    """It is open, where it was, and has in it what it had."""
    assert os.path.samestat(os.fstat(fd), path.stat())
    assert os.lseek(fd, 0, os.SEEK_CUR) == 5
    assert path.read_bytes() == b"0123456789"


def test_a_descriptor_closed_directly_is_already_gone(process: Process, files: FileManager) -> None:
    """Nothing counted, and nothing complained about."""
    os.close(files.memfd(process.pid))
    files.open(process.pid, os.devnull).close()

    result = process.terminate()

    assert result.is_success
    assert result.stats.resources_freed == 0


def test_a_successors_descriptor_is_left_alone(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """B closed A's, its number went to C, A's cleanup closed C's: device and inode are compared."""
    successor = successor_of(files.open_fd(process.pid, os.devnull), tmp_path / "successor")

    result = process.terminate()

    assert result.is_success
    assert result.stats.resources_freed == 0
    assert_untouched(successor, tmp_path / "successor")
    os.close(successor)


@pytest.mark.parametrize("mode", ["r", "rb", "w", "wb", "r+b", "r+"])
def test_a_file_object_never_touches_its_successor(
    process: Process, files: FileManager, tmp_path: Path, mode: str
) -> None:
    """Neither at its owner's end, nor when it is used or collected later; no write, seek, close."""
    (tmp_path / "file").write_text("content\n" * 10)
    file = files.open(process.pid, tmp_path / "file", mode)
    if "r" in mode:
        file.readline()
    if "w" in mode or "+" in mode:
        file.write(b"lost" if "b" in mode else "lost")
    successor = successor_of(file.fileno(), tmp_path / "successor")

    result = process.terminate()

    if mode in {"r", "rb"}:
        assert result.is_success
    else:
        assert [error.outcome for error in result.errors] == [Outcome.FAILED]
        assert "4 buffered bytes are lost" in result.errors[0].message
        assert "closed its descriptor" in result.errors[0].message
    assert result.stats.resources_freed == 0
    with pytest.raises(ValueError, match="closed by somebody else"):
        file.fileno()
    if "r" not in mode:
        with pytest.raises(OSError, match="closed by somebody else"):
            file.write(b"x" * 100_000 if "b" in mode else "x" * 100_000)
    file.close()
    del file
    gc.collect()
    assert_untouched(successor, tmp_path / "successor")
    os.close(successor)


def test_a_wrapped_temporary_file_never_touches_its_successor(
    process: Process, tmp_path: Path
) -> None:
    """Its path is its own still, and goes; the number is another's, and stays."""
    file = tempfile.NamedTemporaryFile(dir=tmp_path)
    process.adopt(file)
    successor = successor_of(file.fileno(), tmp_path / "successor")

    result = process.terminate()
    del file
    gc.collect()

    assert result.is_success
    assert [path.name for path in tmp_path.iterdir()] == ["successor"]
    assert_untouched(successor, tmp_path / "successor")
    os.close(successor)


def test_the_ends_of_a_pipe_are_told_apart(process: Process, files: FileManager) -> None:
    """They share device and inode, but not the access mode."""
    reader, writer = os.pipe()
    process.adopt(reader)
    os.dup2(writer, reader)

    result = process.terminate()

    assert result.stats.resources_freed == 0
    assert is_open(reader)
    os.close(reader)
    os.close(writer)


def test_anonymous_inodes_are_told_apart_by_what_they_are(
    process: Process, files: FileManager
) -> None:
    """All eventfds, epolls and the like share one inode; /proc names them."""
    event = os.eventfd(0)
    process.adopt(event)
    pidfd = os.pidfd_open(os.getpid())
    os.dup2(pidfd, event)

    result = process.terminate()

    assert result.stats.resources_freed == 0
    assert is_open(event)
    os.close(event)
    os.close(pidfd)


def test_a_number_that_comes_round_can_be_owned_again(
    manager: ProcessManager, files: FileManager
) -> None:
    """The entry of the descriptor that was closed directly makes way, even for the same file."""
    first, second = manager.create_process("first"), manager.create_process("second")
    fd = files.open_fd(first.pid, os.devnull)
    os.close(fd)

    assert files.open_fd(second.pid, os.devnull) == fd

    assert first.terminate().stats.resources_freed == 0
    assert is_open(fd)
    assert second.terminate().stats.resources_freed == 1


def test_an_adopted_number_that_comes_round_can_be_adopted_again(
    manager: ProcessManager, files: FileManager
) -> None:
    """As above, where the kernel's word is all there is: another file has the number."""
    first, second = manager.create_process("first"), manager.create_process("second")
    fd = os.memfd_create("first")
    first.adopt(fd)
    os.close(fd)
    again = os.memfd_create("second")
    second.adopt(again)

    assert again == fd
    assert first.terminate().stats.resources_freed == 0
    assert second.terminate().stats.resources_freed == 1
    assert not is_open(fd)


def test_a_descriptor_has_one_owner_whatever_wraps_it(
    manager: ProcessManager, files: FileManager
) -> None:
    """A number under an owned file object, and one's file object over another's number: refused."""
    first, second = manager.create_process("first"), manager.create_process("second")
    file = files.open(first.pid, os.devnull)
    fd = files.memfd(first.pid)
    wrapper = open(fd, "rb", closefd=False)
    for process in (first, second):
        for thing in (file, file.fileno(), fd, *([wrapper] if process is second else [])):
            with pytest.raises(AlreadyOwnedError, match=f"owned by process {first.pid}"):
                process.adopt(thing)

    assert first.adopt(wrapper) == files.table.find(first.pid, fd)
    assert first.terminate().stats.resources_freed == 2
    assert wrapper.closed


def test_numbers_beyond_the_small_ints_are_found(process: Process, files: FileManager) -> None:
    """An equal number is the same descriptor, whichever int object it is."""
    import fcntl

    low = os.memfd_create("low")
    high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 700)
    process.adopt(high)

    with pytest.raises(AlreadyOwnedError):
        process.adopt(int(str(high)))

    files.close(process.pid, int(str(high)))

    assert not is_open(high)
    assert process.pid not in files.table
    os.close(low)


def test_numbers_going_round_between_threads_hit_nobody(
    manager: ProcessManager, files: FileManager
) -> None:
    """Owners that end while others open the very same file: none is lost or closed twice."""
    failures: list[BaseException] = []

    def live() -> None:
        try:
            for _ in range(150):
                process = manager.create_process("brief")
                fds = [files.open_fd(process.pid, os.devnull) for _ in range(3)]
                for fd in fds:
                    os.fstat(fd)
                files.close(process.pid, fds[1])
                result = process.terminate()

                assert result.is_success
                assert result.stats.resources_freed == 2
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=live) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert failures == []
