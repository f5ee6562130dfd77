"""OS pipes (pipe(7)) whose ends wake the thread that is blocked in them when they are closed."""

from __future__ import annotations

import errno
import io
import os
import select
from functools import partial
from typing import TYPE_CHECKING, final

from probate import BusyResourceError, Outcome
from probate.system import OwnedDescriptor, opened_all, path_of
from probate_ipc.errors import PipeClosedError
from probate_ipc.handle import PATIENCE, Handle
from probate_ipc.interruptible import InterruptibleWait

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

#: Bytes that `readall` asks for at a time: what a pipe holds by default (pipe(7)).
_CHUNK = 65536


class _PipeEnd(io.FileIO, Handle):
    """One end: an unbuffered binary file. Threads wait in it in poll(2), never in read or write.

    It stays in blocking mode, so that a child process may be given it.
    """

    def __init__(self, fd: int, mode: str) -> None:
        self._interruptible = InterruptibleWait(self._closed_error)
        self._descriptor, self._name = OwnedDescriptor(fd), path_of(fd)
        #: Whether its number was closed elsewhere, and is another's: never to be closed here.
        self._is_lost = False
        super().__init__(fd, mode)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.describe()}>"

    def describe(self) -> str:
        """Describe it: which end of which pipe, by descriptor and inode."""
        end = "read" if isinstance(self, PipeReader) else "write"
        return f"{end} end of {self._name}, fd {self._descriptor.number}"

    def wake_waiters(self) -> None:
        """Wake every thread that is blocked in it; each gets PipeClosedError."""
        self._interruptible.wake_waiters()

    def close(self) -> None:
        """Wake every thread that is blocked in it, and close it. Idempotent.

        Raises BusyResourceError if such a thread does not leave.
        """
        if self.closed:
            return
        if not self._interruptible.close(PATIENCE):
            raise BusyResourceError(f"a thread has not left {self!r} yet")
        self._is_lost = not self._is_ours
        if not self._is_lost:
            super().close()

    def give_back(self) -> Outcome:
        """Close it; ALREADY_GONE if its number was closed elsewhere, and is another's."""
        is_gone = self.closed or not self._is_ours
        self.close()
        return Outcome.ALREADY_GONE if is_gone else Outcome.RELEASED

    @property
    def number(self) -> int:
        """Its descriptor number, while it is its own."""
        return self._descriptor.number if self._is_ours and not self.closed else -1

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """Its number."""
        return (self._descriptor,)

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._is_lost or super().closed

    def fileno(self) -> int:
        """Its descriptor. Raises ValueError if it is closed."""
        if self._is_lost:
            raise self._closed_error()
        return super().fileno()

    @property
    def _is_ours(self) -> bool:
        return self._descriptor.is_ours

    def _closed_error(self) -> Exception:
        return PipeClosedError(
            "this end of the pipe is closed, or its owner is ending: make another pipe"
        )

    def _wait(self, events: int) -> bool:
        """Wait for room or data; False if this file does not block, by its owner's wish."""
        if not os.get_blocking(self.fileno()):
            return False
        self._interruptible.wait(self.fileno(), events, None)
        return True


@final
class PipeReader(_PipeEnd):
    """The end to read from: `b""` is end of file, when all writers are gone."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "rb")

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read once, at most as much as `buffer` holds; 0 is end of file."""
        with self._interruptible:
            while True:
                try:
                    # Another reader may have been faster than the poll, so never block here.
                    return _read_at_once(self.fileno(), buffer)
                except BlockingIOError:
                    if not self._wait(select.POLLIN):
                        return None

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]  # as readinto
        """Read once, at most `size` bytes, or all up to the end of file."""
        if size is None or size < 0:
            return self.readall()
        buffer = bytearray(size)
        count = self.readinto(buffer)
        return None if count is None else bytes(buffer[:count])

    def readall(self) -> bytes | None:  # type: ignore[override]  # as readinto
        """Read until the end of file."""
        parts: list[bytes] = []
        while part := self.read(_CHUNK):
            parts.append(part)
        return b"".join(parts) if parts or part is not None else None


@final
class PipeWriter(_PipeEnd):
    """The end to write to: BrokenPipeError when all readers are gone."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "wb")

    def write(self, data: ReadableBuffer, /) -> int | None:  # type: ignore[override]  # as readinto
        """Write all of `data`; up to 4096 bytes (PIPE_BUF) are not mixed with others'."""
        rest = memoryview(data).cast("B")
        written = 0
        with self._interruptible:
            while rest:
                try:
                    count = _write_at_once(self.fileno(), rest)
                except BlockingIOError:
                    if not self._wait(select.POLLOUT):
                        return written or None
                else:
                    written += count
                    rest = rest[count:]
                    self._interruptible.check()
        return written

    def stop_sending(self) -> None:
        """Write nothing more, and wake whoever is blocked in a write."""
        self._interruptible.wake_waiters()


def new_pipe() -> tuple[PipeReader, PipeWriter]:
    """A pipe whose descriptors are not inherited by exec (O_CLOEXEC). Raises OSError."""
    return opened_all(
        partial(os.pipe2, os.O_CLOEXEC),
        lambda ends: (PipeReader(ends[0].number), PipeWriter(ends[1].number)),
    )


def _read_at_once(fd: int, buffer: WriteableBuffer) -> int:
    """Read what there is. Raises BlockingIOError if there is nothing."""
    try:
        return os.preadv(fd, [buffer], -1, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    # An older kernel: it blocks only if another reader of this end is faster than we are now.
    _check_ready(fd, select.POLLIN)
    return os.readv(fd, [buffer])


def _write_at_once(fd: int, data: memoryview) -> int:
    """Write what there is room for. Raises BlockingIOError if there is none."""
    try:
        return os.pwritev(fd, [data], -1, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    _check_ready(fd, select.POLLOUT)
    # So much fits when there is room at all (pipe(7)).
    return os.writev(fd, [data[: select.PIPE_BUF]])


def _check_ready(fd: int, event: int) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
