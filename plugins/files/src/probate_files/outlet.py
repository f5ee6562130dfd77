"""Where a file's buffered bytes go when it is flushed for the last time.

A flush through the file object itself may block for ever in a full pipe, and a text layer whose
write is refused forgets what it had. So an outlet takes what `FileIO.write` would: it accepts
everything, writes what can be written without waiting, and keeps the rest. Nothing is lost
unseen then, and what is lost is known to the byte.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import threading
from typing import TYPE_CHECKING, Final, final

from probate_files.identity import identify

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from probate_files.identity import FileIdentity

#: A write of so many bytes does not block where poll(2) says that there is room (pipe(7)).
_ROOM: Final = select.PIPE_BUF

#: Bytes of one write where none needs to be held back.
_CHUNK: Final = 1 << 20

#: `errno`s that say: this descriptor, but not now and not by us; the number itself will do.
_NO_MORE_FDS: Final = {errno.EMFILE, errno.ENFILE}


@final
class Outlet:
    """Takes what is written to a `FileIO`, and passes it on as far as it can be.

    `may_wait`: whether a write to it may wait for a reader.
    """

    __slots__ = (
        "_fd", "_identity", "_is_closed", "_is_own", "_lock", "_may_block", "_may_wait", "_raw",
        "error", "rest", "written",
    )  # fmt: skip

    def __init__(self, raw: io.FileIO, identity: FileIdentity, *, may_wait: bool) -> None:
        self._raw = raw
        self._may_wait = may_wait
        self._identity = identity
        self._lock = threading.Lock()
        self._fd = -1
        self._is_closed = False
        self._is_own = False
        self._may_block = False
        #: What has been taken and not yet been written.
        self.rest = bytearray()
        #: Bytes written so far.
        self.written = 0
        #: Why the rest cannot be written; None while it is only a matter of time.
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Take all of `data`; it is passed on now if possible."""
        taken = bytes(data)
        with self._lock:
            self.rest += taken
            self._pass_on()
        return len(taken)

    def retry(self) -> None:
        """Try once more to pass the rest on."""
        with self._lock:
            self.error = None
            self._pass_on()

    def wait_for_room(self, milliseconds: int) -> None:
        """Wait until there is room in the pipe, or its reader is gone, or the time is over."""
        fd = self._fd
        if fd != -1:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll(milliseconds)

    def close(self) -> None:
        """Write nothing more; what is left stays in `rest`."""
        with self._lock:
            self._is_closed = True
            fd, self._fd = self._fd, -1
            if self._is_own and fd != -1:
                self._is_own = False
                os.close(fd)

    def _pass_on(self) -> None:
        while self.rest and self.error is None and not self._is_closed:
            try:
                write = self._writer()
                written = write(bytes(self.rest[:_CHUNK]))
            except BlockingIOError:
                return
            except OSError as error:
                self.error = error
                return
            del self.rest[:written]
            self.written += written

    def _writer(self) -> Callable[[bytes], int]:
        if self._fd == -1:
            self._open()
        return self._write_if_room if self._may_block else self._write

    def _write(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def _write_if_room(self, data: bytes) -> int:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(self._fd, data[:_ROOM])

    def _open(self) -> None:
        """Get hold of the very file that is meant, whatever becomes of its number meanwhile."""
        number = self._raw.fileno()
        try:
            fd = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
        except OSError as error:
            if error.errno not in _NO_MORE_FDS:
                raise
            fd = number
        if identify(fd) != self._identity:
            if fd != number:
                os.close(fd)
            raise OSError(errno.EBADF, "somebody else has closed its descriptor")
        self._fd, self._is_own = fd, fd != number
        self._may_block = self._may_wait
        if self._may_block and self._is_own:
            self._open_twin(fd)

    def _open_twin(self, fd: int) -> None:
        """Open the same pipe or terminal anew, without blocking.

        O_NONBLOCK belongs to the open file description, which children and duplicates share:
        set on the original, it would surprise them all (fcntl(2), F_SETFL).
        """
        try:
            twin = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            # A socket cannot be opened (ENXIO), nor a FIFO that nobody reads.
            return
        os.close(fd)
        self._fd = twin
        self._may_block = False
