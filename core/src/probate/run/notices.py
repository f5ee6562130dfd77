"""What the kernel says of a tree that is looked on: calls that are held until they are answered.

See seccomp_unotify(2). The text of a path is in the memory of whoever calls, and may change while
it is read; so it tells what may be made, and what was made is looked at when the call has returned.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.run.filter import native
from probate.system.clib import libc

if TYPE_CHECKING:
    import mmap

#: SECCOMP_IOCTL_NOTIF_*, linux/seccomp.h.
_RECEIVE: Final = 0xC0502100
_SEND: Final = 0xC0182101
_IS_HELD: Final = 0x40082102
_SET_FLAGS: Final = 0x40082104
#: Whoever is answered runs at once, on the processor that answers: Linux 6.6.
_WAKE_AT_ONCE: Final = 1

#: `struct seccomp_notif`: id, pid, flags; number, architecture, instruction, arguments.
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
_EMPTY: Final = bytes(_NOTIFICATION.size)
#: `struct seccomp_notif_resp`: id, value, error, flags.
_RESPONSE: Final = struct.Struct("=QqiI")
_ID: Final = struct.Struct("=Q")
_CONTINUE: Final = 1

#: `struct iovec`: address and length.
_VECTOR: Final = struct.Struct("=QQ")

#: A path is no longer than that (PATH_MAX), and memory comes in pages of no less.
_PAGE: Final = 4096

#: Where memory of others is read to, and the vectors that say so. They are for all calls, and only
#: used by the thread that serves: to make them takes longer than to read. As much is read as both
#: vectors have room for, which the one of the others' memory says.
_buffer: Final = ctypes.create_string_buffer(_PAGE)
_address: Final = ctypes.addressof(_buffer)
_local: Final = ctypes.create_string_buffer(_VECTOR.pack(_address, _PAGE), _VECTOR.size)
_remote: Final = ctypes.create_string_buffer(_VECTOR.size)

_process_vm_readv: Final = libc().process_vm_readv

#: How much of a path is read first: few are longer.
_MOST_PATHS: Final = 256

#: The bits of an int, which an argument may have more than.
_INT: Final = 0xFFFFFFFF

#: AT_FDCWD, AF_UNIX, and the most bytes of a `struct sockaddr_un`.
_CURRENT_FOLDER: Final = -100 & _INT
_AF_UNIX: Final = 1
_MOST_ADDRESS: Final = 110

#: What each call is called here; and which of its arguments are the folder, the path, the flags.
_PATHS: Final = {
    "open": ("open", None, 0, 1),
    "openat": ("open", 0, 1, 2),
    "openat2": ("open", 0, 1, None),
    "mkdir": ("mkdir", None, 0, None),
    "mkdirat": ("mkdir", 0, 1, None),
    "mknod": ("mknod", None, 0, None),
    "mknodat": ("mknod", 0, 1, None),
    "link": ("link", None, 1, None),
    "linkat": ("link", 2, 3, None),
}


@final
class Held(NamedTuple):
    """A call that is held."""

    id: int
    #: The thread that calls.
    tid: int
    #: Its name; nothing for one of a 32-bit program.
    call: str
    arguments: tuple[int, ...]


@final
class Listener:
    """Receives the calls that the filter holds, and answers them.

    The last one received is in `page`, which the keeper shares with its front: should it die
    before it has answered, another keeper finds it there.
    """

    def __init__(self, fd: int, page: mmap.mmap) -> None:
        self.fd = fd
        self._page = page
        architecture = native()
        self._audit = architecture.audit
        self._names = {number: call for call, number in architecture.numbers.items()}
        with suppress(OSError):
            fcntl.ioctl(fd, _SET_FLAGS, _WAKE_AT_ONCE)

    def receive(self) -> Held | None:
        """Return the next call; None if whoever made it has been killed. Raises OSError."""
        self._page[: len(_EMPTY)] = _EMPTY
        try:
            # It is more than a kilobyte: the kernel writes into it, and not into a copy.
            fcntl.ioctl(self.fd, _RECEIVE, self._page, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        return self._in_page()

    def unanswered(self) -> Held | None:
        """Return the call that a keeper before had received, if it is held still."""
        held = self._in_page()
        return held if held.id and self.is_held(held.id) else None

    def is_held(self, id_: int) -> bool:
        """Tell whether a call is held still: then all that was read of its caller was its own."""
        try:
            fcntl.ioctl(self.fd, _IS_HELD, _ID.pack(id_))
        except OSError:
            return False
        return True

    def let_go(self, id_: int) -> None:
        """Have a call go on; it may be gone."""
        self._respond(id_, 0, _CONTINUE)

    def answer(self, id_: int, value: int) -> None:
        """Have a call return a value, without being made; it may be gone."""
        self._respond(id_, value, 0)

    def _respond(self, id_: int, value: int, flags: int) -> None:
        try:  # noqa: SIM105  `suppress` takes longer than the rest
            fcntl.ioctl(self.fd, _SEND, _RESPONSE.pack(id_, value, 0, flags))
        except OSError:
            pass

    def _in_page(self) -> Held:
        fields = _NOTIFICATION.unpack_from(self._page)
        id_, tid, _, number, audit = fields[:5]
        call = self._names.get(number, "") if audit == self._audit else ""
        return Held(id_, tid, call, fields[6:])


@final
class Attempt(NamedTuple):
    """What a call is about to make: a path, or the name of a queue."""

    call: str
    #: Absolute, as the caller sees it.
    name: str
    flags: int = 0


def attempt_of(held: Held) -> Attempt | None:
    """Read what a call that is held is about to make; None if that has no name.

    Raises OSError if it cannot be read.
    """
    tid, arguments = held.tid, held.arguments
    if held.call == "bind":
        path = _bound_path(tid, arguments[1], arguments[2])
        return None if path is None else Attempt("bind", _absolute(tid, _CURRENT_FOLDER, path))
    if held.call == "mq_open":
        return Attempt("mq_open", f"/{_text(tid, arguments[0])}", arguments[1])
    if held.call not in _PATHS:
        return None
    call, folder, path_at, flags_at = _PATHS[held.call]
    flags = arguments[flags_at] & _INT if flags_at is not None else 0
    if held.call == "openat2":
        # `struct open_how` begins with the flags; where its memory ends, there are fewer bytes.
        flags = int.from_bytes(_memory(tid, arguments[2], 8), sys.byteorder)
        if not flags & os.O_CREAT or not flags & (os.O_EXCL | os.O_NOFOLLOW):
            return None
    number = _CURRENT_FOLDER if folder is None else arguments[folder] & _INT
    return Attempt(call, _absolute(tid, number, _text(tid, arguments[path_at])), flags)


def _absolute(tid: int, folder: int, path: str) -> str:
    if path.startswith("/"):
        return path
    where = "cwd" if folder == _CURRENT_FOLDER else f"fd/{folder}"
    return f"{os.readlink(f'/proc/{tid}/{where}')}/{path}"


def _bound_path(tid: int, address: int, length: int) -> str | None:
    """Return the path that a socket is about to be bound to; None if it is of another family.

    Or has a name that no file has (unix(7)).
    """
    raw = _memory(tid, address, min(length & _INT, _MOST_ADDRESS))
    if int.from_bytes(raw[:2], "little") != _AF_UNIX:
        return None
    path = raw[2:].partition(b"\0")[0]
    return os.fsdecode(path) if path else None


def _text(tid: int, address: int) -> str:
    text = b""
    while len(text) < _PAGE:
        at = address + len(text)
        # Not beyond the page: the next may not be there.
        count = _read(tid, at, min(_MOST_PATHS, _PAGE - at % _PAGE))
        part: bytes = _buffer.value
        if len(part) < count:
            return os.fsdecode(text + part)
        # What follows was read before.
        text += part[:count]
    return os.fsdecode(text)


def _memory(tid: int, address: int, size: int) -> bytes:
    """Return what is in the memory of a thread. Raises OSError."""
    return ctypes.string_at(_address, _read(tid, address, size))


def _read(tid: int, address: int, size: int) -> int:
    """Read from the memory of a thread into the buffer; return how much. Raises OSError."""
    _VECTOR.pack_into(_remote, 0, address, size)
    count: int = _process_vm_readv(tid, _local, 1, _remote, 1, 0)
    if count < 0:
        # A sandbox may forbid this way (process_vm_readv(2)), and not the other.
        found = _memory_by_proc(tid, address, size)
        ctypes.memmove(_buffer, found, count := len(found))
    return count


def _memory_by_proc(tid: int, address: int, size: int) -> bytes:
    fd = os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if found := os.pread(fd, size, address):
            return found
        raise OSError(errno.ESRCH, "it has ended")
    except OverflowError as error:
        raise OSError(errno.EFAULT, "no address of a program") from error
    finally:
        os.close(fd)
