"""posix_ipc and sysv_ipc, whose errors become Python's own."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import posix_ipc
import sysv_ipc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What they raise for what is not there, or is there already.
ABSENT: Final = (posix_ipc.ExistentialError, sysv_ipc.ExistentialError)
#: What they raise instead of waiting any longer.
WOULD_WAIT: Final = (posix_ipc.BusyError, sysv_ipc.BusyError)
#: What they raise for want of permission.
FORBIDDEN: Final = (posix_ipc.PermissionsError, sysv_ipc.PermissionsError)


@contextmanager
def creating(what: str) -> Iterator[None]:
    """Create `what`: FileExistsError if there is one already, PermissionError."""
    with _as_os_errors(what, absent=errno.EEXIST):
        yield


@contextmanager
def looking_up(what: str) -> Iterator[None]:
    """Open or remove `what`: FileNotFoundError if there is none, PermissionError."""
    with _as_os_errors(what, absent=errno.ENOENT):
        yield


@contextmanager
def undone_by(*undo: Callable[[], None]) -> Iterator[None]:
    """Take hold of what was created just now, or have it removed again."""
    try:
        yield
    except BaseException:
        for each in undo:
            each()
        raise


def kernel_setting(name: str) -> int:
    """Read a number from /proc/sys/kernel (proc(5)), such as msgmax. Raises OSError."""
    with open(f"/proc/sys/kernel/{name}") as file:
        return int(file.read())


@contextmanager
def _as_os_errors(what: str, *, absent: int) -> Iterator[None]:
    """Raise the OSError that the system call failed with, which the packages hide."""
    try:
        yield
    except ABSENT as error:
        raise OSError(absent, f"{what}: {os.strerror(absent)}") from error
    except FORBIDDEN as error:
        raise PermissionError(errno.EACCES, f"{what}: {os.strerror(errno.EACCES)}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # Of two errors they only tell the texts.
        number = errno.ENFILE if "system limit" in str(error) else errno.EMFILE
        raise OSError(number, f"{what}: {os.strerror(number)}") from error
