"""sysv_ipc's segments, with the exceptions of the os module."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final

import sysv_ipc

from probate.journal import SysvIdentity
from probate.system import built

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

S = TypeVar("S")

#: The limits that an error of shmget(2) may stand for, by their names in sysctl(8).
_LIMITS: Final = {
    errno.ENOSPC: ("kernel.shmmni", "kernel.shmall"),
    errno.EINVAL: ("kernel.shmmax",),
}

#: Bit of a segment's mode: it has been removed, and goes with the last who is attached
#: (shmctl(2), IPC_STAT).
_SHM_DEST: Final = 0o1000


@final
class Status(NamedTuple):
    """What the kernel says of a segment (shmctl(2), IPC_STAT)."""

    #: How often it is attached, by any process.
    attaches: int
    size: int
    creator_uid: int
    creator_pid: int
    #: OS process of the latest attach or detach.
    last_pid: int


def create(
    size: int, mode: int, build: Callable[[sysv_ipc.SharedMemory], S], *, is_random: bool, key: int
) -> S:
    """Create and attach a segment of zeros, and return what is built of it, or leave nothing.

    Of a random key, errors do not tell.

    Raises FileExistsError if there is one of that key, and other OSErrors, which name the limit
    that is reached (shmget(2)).
    """
    what = f"segment of {size} bytes" if is_random else f"segment with key {key}"
    # IPC_PRIVATE always makes a new one, and with IPC_EXCL as well (shmget(2)).
    return built(
        partial(
            sysv_ipc.SharedMemory,
            key,
            sysv_ipc.IPC_CREX,
            mode=mode,
            size=size,
            init_character=b"\0",
        ),
        build,
        _undo,
        _as_os_errors(what, errno.EEXIST, _LIMITS),
    )


def _undo(native: sysv_ipc.SharedMemory) -> None:
    native.detach()
    native.remove()


def attach(segment_id: int) -> sysv_ipc.SharedMemory:
    """Attach the segment with that id. Raises FileNotFoundError, and other OSErrors."""
    what = f"segment {segment_id}"
    with _as_os_errors(what, errno.ENOENT):
        try:
            return sysv_ipc.attach(segment_id)
        except ValueError:
            # EINVAL, which says of an id and no address that there is no such id (shmat(2)).
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), what) from None


def attach_by_key(key: int) -> sysv_ipc.SharedMemory:
    """Attach the segment with that key. Raises FileNotFoundError, and other OSErrors."""
    with _as_os_errors(f"segment with key {key}", errno.ENOENT):
        return sysv_ipc.SharedMemory(key)


def status_of(native: sysv_ipc.SharedMemory) -> Status | None:
    """Look at a segment; None if it has been removed, even if it is attached still.

    Raises PermissionError if the kernel does not tell us.
    """
    try:
        with _as_os_errors(f"segment {native.id}", errno.ENOENT):
            if native.mode & _SHM_DEST:
                return None
            return Status(
                native.number_attached,
                native.size,
                native.cuid,
                native.creator_pid,
                native.last_pid,
            )
    except FileNotFoundError:
        return None


def identity_of(native: sysv_ipc.SharedMemory) -> SysvIdentity:
    """Return what tells a segment from a later one when this OS process is dead.

    Raises FileNotFoundError, PermissionError.
    """
    with _as_os_errors(f"segment {native.id}", errno.ENOENT):
        creator = native.cuid, native.cgid
        return SysvIdentity(native.id, native.key, creator, native.last_change_time)


def remove(native: sysv_ipc.SharedMemory) -> None:
    """Mark a segment as to be destroyed. Raises FileNotFoundError, PermissionError."""
    with _as_os_errors(f"segment {native.id}", errno.ENOENT):
        native.remove()


@contextlib.contextmanager
def _as_os_errors(
    what: str, existential: int, limits: Mapping[int, Sequence[str]] | None = None
) -> Iterator[None]:
    """Raise what sysv_ipc raises as the OSError that it was; `existential` is ENOENT or EEXIST."""
    try:
        yield
    except (OSError, MemoryError, ValueError, sysv_ipc.Error) as error:
        number = _number_of(error, existential)
        said = os.strerror(number)
        if reached := (limits or {}).get(number):
            shown = " or ".join(map(_shown, reached))
            said += f": more than {shown} allows; ask for less, or raise it by sysctl(8)"
        raise OSError(number, said, what) from error


def _number_of(error: Exception, existential: int) -> int:
    """Tell the number of an error, of which sysv_ipc may only give a class."""
    if isinstance(error, OSError):
        # It tells one of them by its text alone.
        return error.errno or errno.ENOSPC
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, sysv_ipc.ExistentialError):
        return existential
    return errno.EACCES if isinstance(error, sysv_ipc.PermissionsError) else errno.EINVAL


def _shown(name: str) -> str:
    """A setting of sysctl(8), with its value if that can be read (proc(5))."""
    with contextlib.suppress(OSError):
        return f"{name} ({Path('/proc/sys', name.replace('.', '/')).read_text().strip()})"
    return name
