"""posix_ipc and sysv_ipc, whose errors become Python's own."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import posix_ipc
import sysv_ipc

from probate import ProbateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate_ipc.limits import Limits

#: What they raise for what is not there, or is there already.
ABSENT: Final = (posix_ipc.ExistentialError, sysv_ipc.ExistentialError)
#: What they raise instead of waiting any longer.
WOULD_WAIT: Final = (posix_ipc.BusyError, sysv_ipc.BusyError)
#: What they raise for want of permission.
FORBIDDEN: Final = (posix_ipc.PermissionsError, sysv_ipc.PermissionsError)


@contextmanager
def creating(what: str, limits: Limits) -> Iterator[None]:
    """Create `what`: FileExistsError if there is one already, PermissionError.

    An error that means that one of `limits` is reached says which.
    """
    with _as_os_errors(what, absent=errno.EEXIST, limits=limits):
        yield


@contextmanager
def looking_up(what: str) -> Iterator[None]:
    """Open or remove `what`: FileNotFoundError if there is none, PermissionError."""
    with _as_os_errors(what, absent=errno.ENOENT):
        yield


def unlink_and_close(native: posix_ipc.Semaphore | posix_ipc.MessageQueue) -> None:
    """Undo what was created just now."""
    native.unlink()
    native.close()


@contextmanager
def _as_os_errors(what: str, *, absent: int, limits: Limits | None = None) -> Iterator[None]:
    """Raise the OSError that the system call failed with, which the packages hide."""
    try:
        yield
    except ProbateError:
        raise
    except (OSError, MemoryError, *ABSENT, *FORBIDDEN) as error:
        number = _number_of(error, absent)
        said = (limits or {}).get(number, str)() or os.strerror(number)
        raise OSError(number, f"{what}: {said}") from error


def _number_of(error: Exception, absent: int) -> int:
    """Tell the number of an error, of which they may only have a text."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, FORBIDDEN):
        return errno.EACCES
    if isinstance(error, ABSENT):
        if absent == errno.EEXIST and text.startswith("No "):
            # A folder that is not there, or as semget(2) has it for more than there may be.
            return errno.ENOENT if isinstance(error, posix_ipc.Error) else errno.EINVAL
        return absent
    if "open files" in text:
        return errno.ENFILE
    return errno.EMFILE if "files open" in text else errno.ENOSPC
