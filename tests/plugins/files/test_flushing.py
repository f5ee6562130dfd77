"""Buffered data: written, or reported to the byte; never lost silently, never waited for long."""

# ruff: noqa: SIM115  whoever adopts a file here closes it

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import pickle
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from files_kernel import fill, is_open, read_all, wait_until_blocked_in
from threads import in_thread

from probate import Outcome, ProcessTerminatedError
from probate.testing.witness import KernelView
from probate_files import FileManager, LostDataError

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate import ProcessManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe; the reading end is the test's."""
    reader, writer = os.pipe()
    yield reader, writer
    if is_open(reader):
        os.close(reader)


@pytest.mark.parametrize("mode", ["w", "wb"])
@pytest.mark.parametrize("size", [1, 5000, 60000])
def test_a_full_disk_is_an_error_with_path_and_bytes(
    manager: ProcessManager, files: FileManager, mode: str, size: int
) -> None:
    """Every adapter reported 0 errors whatever happened: a failed flush is an error (ENOSPC)."""
    process = manager.create_process("full")
    file = files.open(process.pid, "/dev/full", mode, buffering=1 << 20)
    fd = file.fileno()
    file.write("x" * size if mode == "w" else b"x" * size)

    result = manager.terminate_process(process.pid)

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "/dev/full" in result.errors[0].resource
    assert f"{size} buffered byte" in result.errors[0].message
    assert "No space left on device" in result.errors[0].message
    assert result.stats.resources_freed == 0
    assert file.closed
    assert not is_open(fd)
    assert not files.owns_any(process.pid)


def test_a_failed_flush_keeps_nothing_else_from_being_closed(
    manager: ProcessManager, files: FileManager, tmp_path: Path
) -> None:
    """One failure never keeps the next from being tried."""
    process = manager.create_process("mixed")
    before = files.open(process.pid, tmp_path / "before", "w")
    files.open(process.pid, "/dev/full", "w").write("lost")
    after = files.open(process.pid, tmp_path / "after", "w")
    for file in (before, after):
        file.write("kept")

    result = manager.terminate_process(process.pid)

    assert result.stats.by_type == {"files": 2}
    assert len(result.errors) == 1
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text() == "kept"


def test_closing_by_hand_raises_what_was_lost_and_closes(
    manager: ProcessManager, files: FileManager
) -> None:
    """An OSError with errno, path and bytes; a second close is a no-op."""
    process = manager.create_process("by hand")
    file = files.open(process.pid, "/dev/full", "w")
    file.write("lost")

    with pytest.raises(LostDataError, match=r"4 buffered bytes are lost: No space") as caught:
        files.close(process.pid, file)

    assert isinstance(caught.value, OSError)
    assert (caught.value.errno, caught.value.nbytes) == (errno.ENOSPC, 4)
    assert caught.value.filename == "/dev/full"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert file.closed
    files.close(process.pid, file)


def test_a_pipe_without_a_reader_is_an_error(
    manager: ProcessManager, files: FileManager, pipe: tuple[int, int]
) -> None:
    """EPIPE, with the bytes that nobody will read."""
    reader, writer = pipe
    process = manager.create_process("orphan")
    file = open(writer, "w")
    process.adopt(file)
    file.write("unread")
    os.close(reader)

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "6 buffered bytes are lost: Broken pipe" in result.errors[0].message
    assert not is_open(writer)


def test_a_reader_gets_what_was_buffered_and_then_end_of_file(
    manager: ProcessManager, pipe: tuple[int, int]
) -> None:
    """The usual case of a pipe with room in it."""
    reader, writer = pipe
    process = manager.create_process("writer")
    file = open(writer, "w")
    process.adopt(file)
    file.write("the last words")

    result = process.terminate()

    assert result.stats.by_type == {"files": 1}
    assert read_all(reader) == b"the last words"


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_full_pipe_holds_up_no_other_file_and_its_loss_is_reported(
    manager: ProcessManager, files: FileManager, tmp_path: Path, pipe: tuple[int, int], mode: str
) -> None:
    """A flush that would block is tried twice; the reader that slept then sees end-of-file."""
    reader, writer = pipe
    process = manager.create_process("stuck")
    older = files.open(process.pid, tmp_path / "older", "w")
    older.write("kept")
    filled = fill(writer)
    file = open(writer, mode)
    process.adopt(file)
    file.write("x" * 100 if mode == "w" else b"x" * 100)

    result = process.terminate()

    assert result.stats.by_type == {"files": 1}
    assert (tmp_path / "older").read_text() == "kept"
    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "100 buffered bytes are lost: it is full" in result.errors[0].message
    assert result.stats.duration_seconds < 5
    assert not is_open(writer)
    assert file.closed
    assert len(read_all(reader)) == filled


def test_the_flag_of_a_shared_description_is_left_alone(
    manager: ProcessManager, pipe: tuple[int, int]
) -> None:
    """O_NONBLOCK belongs to the description that children share: it is never set."""
    reader, writer = pipe
    process = manager.create_process("sharer")
    shared = os.dup(writer)
    fill(writer)
    seen: list[bool] = []
    file = open(writer, "wb")
    process.adopt(file)
    file.write(b"x")
    thread, _ = in_thread(lambda: seen.extend(os.get_blocking(shared) for _ in range(2000)))
    process.terminate()
    thread.join(5)
    os.close(shared)
    read_all(reader)

    assert set(seen) == {True}


def test_a_slow_reader_has_the_grace_to_read(
    manager: ProcessManager, pipe: tuple[int, int]
) -> None:
    """The flush begins at quiesce, and the one wait of the termination is for it too."""
    reader, writer = pipe
    process = manager.create_process("slow")
    filled = fill(writer)
    file = open(writer, "w")
    process.adopt(file)
    file.write("the last words")
    started = threading.Event()

    def read() -> bytes:
        started.wait(5)
        return read_all(reader)

    thread, outcome = in_thread(read)
    started.set()

    result = process.terminate(grace=10)
    thread.join(5)

    assert result.is_success
    assert outcome[0] == b"." * filled + b"the last words"


def test_a_reader_that_reads_between_two_attempts_loses_nothing(
    manager: ProcessManager, files: FileManager, pipe: tuple[int, int]
) -> None:
    """As long as something is read, the file is BUSY and stays owned; then it comes free."""
    reader, writer = pipe
    process = manager.create_process("reading")
    filled = fill(writer)
    file = open(writer, "wb", buffering=1 << 20)
    process.adopt(file)
    data = os.urandom(200_000)
    file.write(data)

    first = files.cleanup(process.pid)
    got = os.read(reader, 65536)
    # What has been read makes room, which the flush that goes on in the background takes.
    while len(got) < filled + 4096:
        got += os.read(reader, 4096)
    second = files.cleanup(process.pid)
    thread, rest = in_thread(lambda: read_all(reader))
    result = process.terminate(grace=5)
    thread.join(5)

    assert [error.outcome for error in first.errors] == [Outcome.BUSY]
    assert "its reader does not read" in first.errors[0].message
    assert [error.outcome for error in second.errors] == [Outcome.BUSY]
    assert result.is_success
    assert result.stats.by_type == {"files": 1}
    assert isinstance(rest[0], bytes)
    assert (got + rest[0])[filled:] == data


def test_a_thread_blocked_in_a_write_holds_up_nobody(
    manager: ProcessManager, files: FileManager, tmp_path: Path, pipe: tuple[int, int]
) -> None:
    """It has the buffer locked, so that closing it natively would hang; the number comes free."""
    reader, writer = pipe
    process = manager.create_process("blocked")
    other = files.open(process.pid, tmp_path / "other", "w")
    other.write("kept")
    fill(writer)
    file = open(writer, "wb")
    process.adopt(file)

    def write() -> None:
        file.write(b"x" * 100_000)

    thread, outcome = in_thread(write)
    wait_until_blocked_in(thread, "write")

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "an unknown number of buffered bytes are lost" in result.errors[0].message
    assert "another thread is blocked in a write to it" in result.errors[0].message
    assert result.stats.by_type == {"files": 1}
    assert result.stats.duration_seconds < 5
    assert not is_open(writer)

    # When its call returns, it learns that the file is closed.
    os.close(reader)
    thread.join(5)

    assert isinstance(outcome[0], (BrokenPipeError, ValueError))
    _join_flushes()


def test_many_sleeping_readers_are_waited_for_once(manager: ProcessManager) -> None:
    """The patience is shared: its length does not grow with the number of full pipes."""
    process = manager.create_process("many")
    pipes = [os.pipe() for _ in range(30)]
    for _, writer in pipes:
        fill(writer)
        file = open(writer, "wb")
        process.adopt(file)
        file.write(b"x")

    result = process.terminate()
    for reader, _ in pipes:
        os.close(reader)

    assert len(result.errors) == 30
    assert result.stats.duration_seconds < 5


def test_closing_by_hand_waits_for_the_reader(
    manager: ProcessManager, files: FileManager, pipe: tuple[int, int]
) -> None:
    """As a native close does; nothing is lost."""
    reader, writer = pipe
    process = manager.create_process("patient")
    filled = fill(writer)
    file = open(writer, "w")
    process.adopt(file)
    file.write("the last words")
    thread, outcome = in_thread(lambda: files.close(process.pid, file))
    while not outcome and len(os.read(reader, 4096)) == 4096:
        filled -= 4096
        if filled == 0:
            break
    rest = read_all(reader)
    thread.join(5)

    assert outcome == [None]
    assert rest.endswith(b"the last words")


def test_a_termination_ends_a_close_that_waits(
    manager: ProcessManager, files: FileManager, pipe: tuple[int, int]
) -> None:
    """It is still owned while it waits; the account tells of the loss, once."""
    _, writer = pipe
    process = manager.create_process("impatient")
    fill(writer)
    file = open(writer, "w")
    process.adopt(file)
    file.write("lost")
    before = threading.active_count()
    thread, outcome = in_thread(lambda: files.close(process.pid, file))
    while threading.active_count() < before + 2:
        thread.join(0.001)

    result = process.terminate()
    thread.join(5)

    assert isinstance(outcome[0], ProcessTerminatedError)
    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert not is_open(writer)


def test_a_blocked_reader_does_not_hold_up_its_owners_end(
    manager: ProcessManager, pipe: tuple[int, int]
) -> None:
    """A close wakes no reader (close(2)), nor waits for it; the writer's end does, when it goes."""
    reader, writer = pipe
    process = manager.create_process("reader")
    file = open(reader, "rb")
    process.adopt(file)
    thread, outcome = in_thread(lambda: file.read(10))
    wait_until_blocked_in(thread, "read")

    result = process.terminate()

    assert result.is_success
    assert not is_open(reader)

    os.write(writer, b"late")
    os.close(writer)
    thread.join(5)

    assert not thread.is_alive()
    assert outcome


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
@pytest.mark.parametrize("mode", ["wt", "wb"])
def test_compressed_files_are_complete(
    manager: ProcessManager, tmp_path: Path, opener: Callable[..., io.IOBase], mode: str
) -> None:
    """They write their end, such as a checksum, when they are closed."""
    process = manager.create_process("archiver")
    path = tmp_path / "archive"
    file = opener(path, mode)
    process.adopt(file)
    file.write("text" if mode == "wt" else b"text")

    result = process.terminate()

    assert result.stats.by_type == {"files": 1}
    assert file.closed
    with opener(path) as again:
        assert again.read() == b"text"


def test_a_compressed_file_on_a_full_disk_tells_of_its_loss(
    manager: ProcessManager,
) -> None:
    """Its last bytes come into being at the end, and are counted too."""
    process = manager.create_process("archiver")
    file = gzip.open("/dev/full", "wt")
    process.adopt(file)
    file.write("text")

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "No space left on device" in result.errors[0].message
    assert file.closed


def test_a_file_object_on_a_socket_is_flushed_as_far_as_it_goes(
    manager: ProcessManager,
) -> None:
    """A socket cannot be opened anew, so it is asked whether there is room."""
    process = manager.create_process("socket")
    ours, theirs = socket.socketpair()
    file = open(ours.detach(), "wb")
    process.adopt(file)
    file.write(b"the last words")

    result = process.terminate()
    with theirs:
        received = theirs.recv(100) + theirs.recv(100)

    assert result.stats.by_type == {"files": 1}
    assert received == b"the last words"


def test_without_free_descriptors_what_is_buffered_is_written_all_the_same(
    manager: ProcessManager, files: FileManager, tmp_path: Path, pipe: tuple[int, int]
) -> None:
    """A process that leaks descriptors ends in EMFILE; that must not cost its data."""
    import resource

    reader, writer = pipe
    process = manager.create_process("exhausted")
    file = files.open(process.pid, tmp_path / "file", "w")
    file.write("kept")
    stream = open(writer, "w")
    process.adopt(stream)
    stream.write("kept as well")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(KernelView.take().fds)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    hogs: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            _use_up(hogs)
        result = process.terminate()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for hog in hogs:
            os.close(hog)

    assert result.is_success
    assert (tmp_path / "file").read_text() == "kept"
    assert read_all(reader) == b"kept as well"


def test_data_written_between_quiesce_and_cleanup_is_not_lost(
    manager: ProcessManager, files: FileManager, tmp_path: Path, pipe: tuple[int, int]
) -> None:
    """Users were asked to stop, and some write their last words then."""
    reader, writer = pipe
    process = manager.create_process("late")
    file = files.open(process.pid, tmp_path / "file", "w")
    stream = open(writer, "w")
    process.adopt(stream)
    for each in (file, stream):
        each.write("early ")
    for future in files.quiesce(process.pid):
        future.result(5)
    for each in (file, stream):
        each.write("late")
    result = process.terminate()

    assert result.is_success
    assert (tmp_path / "file").read_text() == "early late"
    assert read_all(reader) == b"early late"


def test_last_words_into_a_pipe_that_is_full_again_are_waited_for(
    manager: ProcessManager, files: FileManager, pipe: tuple[int, int]
) -> None:
    """Written after the flush was through: BUSY, not lost, while the reader may yet read."""
    reader, writer = pipe
    process = manager.create_process("late")
    file = open(writer, "w")
    process.adopt(file)
    file.write("early")
    for future in files.quiesce(process.pid):
        future.result(5)
    filled = fill(writer)
    file.write("late")

    first = files.cleanup(process.pid)
    thread, outcome = in_thread(lambda: read_all(reader))
    result = process.terminate(grace=5)
    thread.join(5)

    assert [error.outcome for error in first.errors] == [Outcome.BUSY]
    assert result.is_success
    assert outcome[0] == b"early" + b"." * filled + b"late"


def test_a_compressed_pipe_gets_its_checksum_through(
    manager: ProcessManager, pipe: tuple[int, int]
) -> None:
    """What is only written at the end may have to wait as well."""
    reader, writer = pipe
    process = manager.create_process("archiver")
    filled = fill(writer)
    file = gzip.open(open(writer, "wb"), "wb")
    process.adopt(file)
    data = os.urandom(100_000)
    thread, outcome = in_thread(lambda: read_all(reader))
    file.write(data)
    result = process.terminate(grace=5)
    # Of a file object that it was given, gzip closes none itself.
    thread.join(5)

    assert result.is_success
    assert isinstance(outcome[0], bytes)
    assert gzip.decompress(outcome[0][filled:]) == data


def test_quiesce_never_blocks(
    manager: ProcessManager, files: FileManager, pipe: tuple[int, int]
) -> None:
    """A full pipe's flush goes on in the background; the future is done when it is through."""
    reader, writer = pipe
    process = manager.create_process("quiesced")
    filled = fill(writer)
    file = open(writer, "w")
    process.adopt(file)
    file.write("more")

    (future,) = files.quiesce(process.pid)

    assert not future.done()
    assert files.quiesce(process.pid) == [future]

    got = b""
    while len(got) < filled + 4:
        got += os.read(reader, 4096)
    future.result(5)

    assert got.endswith(b"more")
    assert process.terminate().is_success


def _use_up(hogs: list[int]) -> None:
    while True:
        hogs.append(os.dup(0))


def _join_flushes() -> None:
    """Wait for background flushes that were given up while they were blocked."""
    for thread in threading.enumerate():
        if thread.name == "probate-flush":
            thread.join(5)
