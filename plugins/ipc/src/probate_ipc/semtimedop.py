"""semtimedop(2): the wait with a timeout that published builds of sysv_ipc lack.

They say so (`SEMAPHORE_TIMEOUT_SUPPORTED`), and wait for ever whatever timeout they are given.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

import sysv_ipc

#: Flag of an operation that the kernel undoes if this OS process dies (semop(2)).
_SEM_UNDO: Final = 0x1000


class _Sembuf(ctypes.Structure):
    _fields_ = (
        ("sem_num", ctypes.c_ushort),
        ("sem_op", ctypes.c_short),
        ("sem_flg", ctypes.c_short),
    )


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


#: Releases the interpreter's lock for as long as it waits.
_semtimedop: Final = ctypes.CDLL(None, use_errno=True).semtimedop
_semtimedop.argtypes = (
    ctypes.c_int,
    ctypes.POINTER(_Sembuf),
    ctypes.c_size_t,
    ctypes.POINTER(_Timespec),
)
_semtimedop.restype = ctypes.c_int


def take(semid: int, timeout: float, *, undo: bool) -> None:
    """Take a permit of the first semaphore of a set, within `timeout` seconds.

    Raises as sysv_ipc does: BusyError if none came in time, or a signal cut the wait short (look
    again), ExistentialError if the set is removed; any other OSError as it is.
    """
    operation = _Sembuf(0, -1, _SEM_UNDO if undo else 0)
    seconds = int(timeout)
    limit = _Timespec(seconds, int((timeout - seconds) * 1e9))
    if _semtimedop(semid, ctypes.byref(operation), 1, ctypes.byref(limit)) == 0:
        return
    number = ctypes.get_errno()
    message = f"semtimedop of id {semid}: {os.strerror(number)}"
    if number in {errno.EAGAIN, errno.EINTR}:
        raise sysv_ipc.BusyError(message)
    if number in {errno.EIDRM, errno.EINVAL}:
        raise sysv_ipc.ExistentialError(message)
    raise OSError(number, message)
