"""Buffered data: written, or reported; never lost silently, never waited for long."""

# ruff: noqa: SIM115  whoever adopts a file here closes it

from __future__ import annotations

import bz2
import errno
import fcntl
import gzip
import io
import lzma
import os
import pickle
import resource
import socket
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from files_kernel import fill, is_open, read_all, wait_until_blocked_in
from threads import in_thread

from probate import Outcome, ProcessTerminatedError
from probate.testing.witness import KernelView
from probate_files import FileManager, LostDataError, flushing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate import Process, ProcessManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe; the reading end is the test's."""
    reader, writer = os.pipe()
    yield reader, writer
    if is_open(reader):
        os.close(reader)


def adopted(process: Process, file: Any, data: str | bytes = "") -> Any:
    """A file object that a process has adopted, with something unwritten in it."""
    process.adopt(file)
    file.write(data)
    return file


def sealed_file() -> io.BufferedWriter:
    """A file in memory that nothing can be written to (memfd_create(2), F_SEAL_WRITE)."""
    fd = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    return open(fd, "wb")


# -- what cannot be written --------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "wb"])
@pytest.mark.parametrize("size", [1, 5000, 60000])
def test_a_full_disk_is_an_error_with_path_and_bytes(
    files: FileManager, process: Process, mode: str, size: int
) -> None:
    """Every adapter reported 0 errors whatever happened: a failed flush is an error (ENOSPC)."""
    file = files.open(process.pid, "/dev/full", mode, buffering=1 << 20)
    fd = file.fileno()
    file.write("x" * size if mode == "w" else b"x" * size)

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "/dev/full" in result.errors[0].resource
    assert f"{size} buffered byte" in result.errors[0].message
    assert "No space left on device: '/dev/full'" in result.errors[0].message
    assert result.stats.resources_freed == 0
    assert file.closed
    assert not is_open(fd)
    assert process.pid not in files.table


@pytest.mark.parametrize(
    ("make", "data", "why"),
    [
        (sealed_file, b"lost", "4 buffered bytes are lost: Operation not permitted"),
        (lambda: gzip.open("/dev/full", "wt"), "lost", "bytes are lost: No space left on device"),
        (lambda: open(_unread_pipe(), "w"), "lost", "bytes are lost: Broken pipe: 'pipe:"),
    ],
    ids=["in memory", "compressed", "unread pipe"],
)
def test_what_cannot_be_written_is_an_error_wherever_it_goes(
    process: Process, make: Callable[[], io.IOBase], data: str | bytes, why: str
) -> None:
    """As above; the last bytes of a compressed file only come into being at its end."""
    file = adopted(process, make(), data)

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert why in result.errors[0].message
    assert file.closed


def test_a_failed_flush_keeps_nothing_else_from_being_closed(
    files: FileManager, process: Process, tmp_path: Path
) -> None:
    """One failure never keeps the next from being tried."""
    before = files.open(process.pid, tmp_path / "before", "w")
    files.open(process.pid, "/dev/full", "w").write("lost")
    after = files.open(process.pid, tmp_path / "after", "w")
    for file in (before, after):
        file.write("kept")

    result = process.terminate()

    assert result.stats.by_type == {"files": 2}
    assert len(result.errors) == 1
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text() == "kept"


def test_closing_by_hand_raises_what_was_lost_and_closes(
    files: FileManager, process: Process
) -> None:
    """An OSError with errno, path and bytes; a second close is a no-op."""
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


def test_what_a_text_file_has_forgotten_is_reported_although_there_is_room_again(
    files: FileManager, process: Process, tmp_path: Path
) -> None:
    """It drops what it could not hand on, so that a second flush succeeds with less in it."""
    file = files.open(process.pid, tmp_path / "file", "w", buffering=16)
    raw = cast("Any", file).buffer.raw
    file.write("x" * 100)

    def write(_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    vars(raw)["write"] = write
    for future in files.quiesce(process.pid):
        future.result(5)
    del vars(raw)["write"]

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "No space left on device" in result.errors[0].message
    assert file.closed


# -- what must wait ----------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "wb"])
@pytest.mark.parametrize("stream", ["pipe", "socket"])
def test_a_reader_gets_what_was_buffered_and_then_end_of_file(
    process: Process, mode: str, stream: str
) -> None:
    """The usual case of a pipe, or a socket, with room in it."""
    ours, theirs = _ends(stream)
    adopted(process, open(ours, mode), "the last words" if mode == "w" else b"the last words")

    result = process.terminate()

    assert result.stats.by_type == {"files": 1}
    assert read_all(theirs) == b"the last words"
    os.close(theirs)


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_full_pipe_holds_up_no_other_file_and_loses_nothing(
    manager: ProcessManager,
    files: FileManager,
    process: Process,
    tmp_path: Path,
    pipe: tuple[int, int],
    mode: str,
) -> None:
    """Not written in time, it stays owned; whenever its reader reads, it gets all and the end."""
    reader, writer = pipe
    files.open(process.pid, tmp_path / "older", "w").write("kept")
    filled = fill(writer)
    file = adopted(process, open(writer, mode), "x" * 100 if mode == "w" else b"x" * 100)

    result = process.terminate()

    assert result.stats.by_type == {"files": 1}
    assert (tmp_path / "older").read_text() == "kept"
    assert [error.outcome for error in result.errors] == [Outcome.TIMEOUT]
    assert f"'pipe:[{os.fstat(reader).st_ino}]' is not written yet" in result.errors[0].message
    assert result.stats.duration_seconds < 5
    assert files.table.count(process.pid) == 1

    assert read_all(reader) == b"." * filled + b"x" * 100

    assert _settled(manager, process).resources_freed == 1
    assert file.closed
    assert not is_open(writer)


def test_a_reader_that_is_gone_in_the_end_is_told_of_by_the_next_cleanup(
    manager: ProcessManager, process: Process, pipe: tuple[int, int]
) -> None:
    """What came of a flush in the background is never lost."""
    reader, writer = pipe
    fill(writer)
    adopted(process, open(writer, "w"), "lost")
    process.terminate()
    os.close(reader)

    stats = _settled(manager, process)

    assert [error.outcome for error in stats.errors] == [Outcome.FAILED]
    assert "bytes are lost: Broken pipe" in stats.errors[0].message
    assert not is_open(writer)


def test_a_slow_reader_has_the_grace_to_read(process: Process, pipe: tuple[int, int]) -> None:
    """The flush begins at quiesce, and the one wait of the termination is for it too."""
    reader, writer = pipe
    filled = fill(writer)
    adopted(process, open(writer, "w"), "the last words")
    thread, outcome = in_thread(lambda: read_all(reader))

    result = process.terminate(grace=10)
    thread.join(5)

    assert result.is_success
    assert outcome[0] == b"." * filled + b"the last words"


def test_a_pipe_that_does_not_block_is_waited_for_all_the_same(
    process: Process, pipe: tuple[int, int]
) -> None:
    """With O_NONBLOCK a flush fails half way: it goes on once there is room, and loses nothing."""
    reader, writer = pipe
    os.set_blocking(writer, False)
    filled = fill(writer)
    data = os.urandom(200_000)
    adopted(process, open(writer, "wb", buffering=1 << 20), data)
    thread, outcome = in_thread(lambda: read_all(reader))

    result = process.terminate(grace=10)
    thread.join(5)

    assert result.is_success
    assert outcome[0] == b"." * filled + data


def test_a_thread_blocked_in_a_write_holds_up_nobody(
    manager: ProcessManager,
    files: FileManager,
    process: Process,
    tmp_path: Path,
    pipe: tuple[int, int],
) -> None:
    """It has the buffer locked, so that closing it natively hangs: on a thread that is left."""
    reader, writer = pipe
    files.open(process.pid, tmp_path / "other", "w").write("kept")
    fill(writer)
    file = open(writer, "wb")
    process.adopt(file)
    thread, outcome = in_thread(lambda: file.write(b"x" * 100_000))
    wait_until_blocked_in(thread, "write")

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.TIMEOUT]
    assert result.stats.by_type == {"files": 1}
    assert result.stats.duration_seconds < 5

    assert len(read_all(reader)) > 100_000

    thread.join(5)
    assert outcome == [100_000]
    assert _settled(manager, process).resources_freed == 1


def test_a_disk_that_does_not_answer_holds_up_no_other_file(
    manager: ProcessManager,
    files: FileManager,
    process: Process,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What hangs is named, stays owned, and is closed when its disk is there again."""
    monkeypatch.setattr(flushing, "DISK_PATIENCE", 0.2)
    opened = [files.open(process.pid, tmp_path / str(number), "w") for number in range(5)]
    for file in opened:
        file.write("kept")
    raw, answers = cast("Any", opened[2]).buffer.raw, threading.Event()

    def write(data: bytes) -> int:
        assert answers.wait(10)
        return io.FileIO.write(raw, data)

    vars(raw)["write"] = write

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.TIMEOUT]
    assert f"{str(tmp_path / '2')!r} is not written yet" in result.errors[0].message
    assert result.stats.resources_freed == 4
    assert [file.closed for file in opened] == [True, True, False, True, True]

    answers.set()

    assert _settled(manager, process).resources_freed == 1
    assert {path.read_text() for path in tmp_path.iterdir()} == {"kept"}
    assert opened[2].closed


def test_many_sleeping_readers_are_waited_for_once(
    manager: ProcessManager, process: Process
) -> None:
    """The patience is shared: its length does not grow with the number of full pipes."""
    pipes = [os.pipe() for _ in range(30)]
    for _, writer in pipes:
        fill(writer)
        adopted(process, open(writer, "wb"), b"x")

    result = process.terminate()
    for reader, _ in pipes:
        os.close(reader)

    assert len(result.errors) == 30
    assert result.stats.duration_seconds < 2
    assert len(_settled(manager, process).errors) == 30


def test_closing_by_hand_waits_for_the_reader(
    files: FileManager, process: Process, pipe: tuple[int, int]
) -> None:
    """As a native close does; nothing is lost."""
    reader, writer = pipe
    filled = fill(writer)
    file = adopted(process, open(writer, "w"), "the last words")
    thread, outcome = in_thread(lambda: files.close(process.pid, file))
    got = b""
    while len(got) < filled:
        got += os.read(reader, 4096)
    rest = got[filled:] + read_all(reader)
    thread.join(5)

    assert outcome == [None]
    assert rest == b"the last words"


def test_a_termination_ends_a_close_that_waits(
    manager: ProcessManager, files: FileManager, process: Process, pipe: tuple[int, int]
) -> None:
    """It is still owned while it waits; the account tells that it could not be written, once."""
    reader, writer = pipe
    fill(writer)
    file = adopted(process, open(writer, "w"), "unread")
    before = threading.active_count()
    thread, outcome = in_thread(lambda: files.close(process.pid, file))
    while threading.active_count() < before + 2:
        thread.join(0.001)

    result = process.terminate()
    thread.join(5)

    assert isinstance(outcome[0], ProcessTerminatedError)
    assert [error.outcome for error in result.errors] == [Outcome.TIMEOUT]
    assert read_all(reader).endswith(b"unread")
    assert _settled(manager, process).resources_freed == 1


def test_a_blocked_reader_does_not_hold_up_its_owners_end(
    process: Process, pipe: tuple[int, int]
) -> None:
    """A close wakes no reader (close(2)), nor waits for it; the writer's end does, when it goes."""
    reader, writer = pipe
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


def test_quiesce_never_blocks(files: FileManager, process: Process, pipe: tuple[int, int]) -> None:
    """A full pipe's flush goes on in the background; the future is done when it is through."""
    reader, writer = pipe
    filled = fill(writer)
    adopted(process, open(writer, "w"), "more")

    (future,) = files.quiesce(process.pid)

    assert not future.done()
    assert files.quiesce(process.pid) == [future]

    got = b""
    while len(got) < filled + 4:
        got += os.read(reader, 4096)
    future.result(5)

    assert got.endswith(b"more")
    assert process.terminate().is_success


def test_data_written_between_quiesce_and_cleanup_is_not_lost(
    files: FileManager, process: Process, tmp_path: Path, pipe: tuple[int, int]
) -> None:
    """Users were asked to stop, and some write their last words then."""
    reader, writer = pipe
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


# -- whatever it is ----------------------------------------------------------


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
@pytest.mark.parametrize("mode", ["wt", "wb"])
def test_compressed_files_are_complete(
    process: Process, tmp_path: Path, opener: Callable[..., io.IOBase], mode: str
) -> None:
    """They write their end, such as a checksum, when they are closed."""
    path = tmp_path / "archive"
    file = adopted(process, opener(path, mode), "text" if mode == "wt" else b"text")

    result = process.terminate()

    assert result.stats.by_type == {"files": 1}
    assert file.closed
    with opener(path) as again:
        assert again.read() == b"text"


def test_a_compressed_pipe_gets_its_checksum_through(
    process: Process, pipe: tuple[int, int]
) -> None:
    """What is only written at the end may have to wait as well."""
    reader, writer = pipe
    filled = fill(writer)
    # Of a file object that it was given, gzip closes none itself.
    file = gzip.open(open(writer, "wb"), "wb")
    process.adopt(file)
    data = os.urandom(100_000)
    thread, outcome = in_thread(lambda: read_all(reader))
    file.write(data)
    result = process.terminate(grace=5)
    thread.join(5)

    assert result.is_success
    assert isinstance(outcome[0], bytes)
    assert gzip.decompress(outcome[0][filled:]) == data


def test_without_free_descriptors_what_is_buffered_is_written_all_the_same(
    files: FileManager, process: Process, tmp_path: Path, pipe: tuple[int, int]
) -> None:
    """A process that leaks descriptors ends in EMFILE; that must not cost its data."""
    reader, writer = pipe
    files.open(process.pid, tmp_path / "file", "w").write("kept")
    adopted(process, open(writer, "w"), "kept as well")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(KernelView.take().fds)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    hogs: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            hogs.extend(iter(lambda: os.dup(0), -1))
        result = process.terminate()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for hog in hogs:
            os.close(hog)

    assert result.is_success
    assert (tmp_path / "file").read_text() == "kept"
    assert read_all(reader) == b"kept as well"


def test_without_free_threads_what_is_buffered_is_written_all_the_same(
    files: FileManager, process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unwatched is better than not at all."""
    files.open(process.pid, tmp_path / "file", "w").write("kept")
    reader, writer = os.pipe()
    adopted(process, open(writer, "w"), "kept as well")

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        result = process.terminate()

    assert result.is_success
    assert (tmp_path / "file").read_text() == "kept"
    assert read_all(reader) == b"kept as well"
    os.close(reader)


def _unread_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _ends(stream: str) -> tuple[int, int]:
    """A writing and a reading end."""
    if stream == "pipe":
        reader, writer = os.pipe()
        return writer, reader
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def _settled(manager: ProcessManager, process: Process) -> Any:
    """The account of the cleanup that finds nothing under way any more."""
    for thread in threading.enumerate():
        if thread.name == "probate-files":
            thread.join(5)
    return manager.orchestrator["files"].cleanup(process.pid)
