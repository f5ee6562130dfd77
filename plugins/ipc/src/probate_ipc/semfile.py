"""Creation of a named POSIX semaphore whose file has its name, or none, at any moment.

sem_open(3) writes a file of some other name first, and links it to the wanted one: a process that
is killed in between leaves a file of which nobody can tell whose it is. A file that has no name yet
(open(2), O_TMPFILE) goes with whoever made it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import suppress
from functools import partial
from typing import Final

import posix_ipc

from probate.system import give_back, take

#: A semaphore takes no more than this (sem_t of glibc and musl), on any architecture.
_MOST_BYTES: Final = 32

#: Of a file system without such files (open(2)).
_UNSUPPORTED: Final = {errno.EOPNOTSUPP, errno.EISDIR}

#: Its user opens it by its name, whatever others may.
_OPENED_WITH: Final = stat.S_IRUSR | stat.S_IWUSR

_sem_init: Final = ctypes.CDLL(None, use_errno=True).sem_init


def create(name: str, path: str, mode: int, value: int) -> posix_ipc.Semaphore:
    """Create the semaphore of that name, whose file is to be at `path`, and open it.

    Raises what posix_ipc does, and OSError.
    """
    numbers: list[int] = []
    linked: list[None] = []
    made: list[posix_ipc.Semaphore] = []
    try:
        try:
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            take(numbers, os.open, os.path.dirname(path), flags, mode)  # noqa: PTH120  a string, as all of this kind's
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            take(made, posix_ipc.Semaphore, name, posix_ipc.O_CREX, mode, value)
            return made[0]
        [fd] = numbers
        allowed = stat.S_IMODE(os.fstat(fd).st_mode)
        is_narrow = allowed & _OPENED_WITH != _OPENED_WITH
        if is_narrow:
            os.fchmod(fd, _OPENED_WITH)
        os.write(fd, _initial(value))
        # With a descriptor given, linkat(2) is called, which follows this link to the file.
        take(linked, partial(os.link, f"/proc/self/fd/{fd}", path, src_dir_fd=fd))
        take(made, posix_ipc.Semaphore, name)
        if is_narrow:
            os.fchmod(fd, allowed)
        give_back(numbers, 1)
        return made[0]
    except BaseException:
        if linked or made:
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108  the same string
        for each in made:
            each.close()
        give_back(numbers, len(numbers))
        raise


def _initial(value: int) -> bytes:
    """Return a semaphore between OS processes as it is in memory (sem_init(3)). Raises OSError."""
    semaphore = ctypes.create_string_buffer(_MOST_BYTES)
    if _sem_init(semaphore, 1, ctypes.c_uint(value)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return semaphore.raw
