"""The number that signals are written to (signal.set_wakeup_fd), given up before it is closed.

The main thread alone can ask, and the one way to ask is to set another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: Seconds that the main thread has to come to it; if it takes longer, it is done all the same.
_PATIENCE: Final = 0.05

#: What signals may well be written to: pipes, sockets, and an eventfd, which has no type.
_TYPES: Final = {stat.S_IFIFO, stat.S_IFSOCK, 0}

#: What the main thread is yet to call. It has to be kept until then.
_pending: Final[dict[int, Any]] = {}


def give_up_wakeup(numbers: Iterable[int]) -> None:
    """Have signals no longer written to numbers that are about to be closed; from any thread.

    Numbers that block are none that `signal.set_wakeup_fd` takes. What others have set stays set,
    with a warning when its buffer is full, which is the default.
    """
    candidates = frozenset(filter(_may_be_written_to, numbers))
    if not candidates:
        return
    if threading.current_thread() is threading.main_thread():
        _give_up(candidates)
    else:
        _call_in_main_thread(candidates)


def _may_be_written_to(number: int) -> bool:
    try:
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
        is_written = flags & os.O_NONBLOCK and flags & os.O_ACCMODE != os.O_RDONLY
        return bool(is_written) and stat.S_IFMT(os.fstat(number).st_mode) in _TYPES
    except OSError:
        return False


def _give_up(numbers: Collection[int]) -> None:
    """Have signals written nowhere, if they are written to one of these numbers."""
    # Where no descriptor is left, nothing can be asked.
    with contextlib.suppress(OSError):
        # Takes what signals write meanwhile.
        file = os.memfd_create("probate-wakeup", os.MFD_CLOEXEC)
        os.set_blocking(file, False)
        current = file
        try:
            try:
                current = signal.set_wakeup_fd(file)
            finally:
                _set_back(-1 if current in {file, *numbers} else current, file)
            written = os.pread(file, os.fstat(file).st_size, 0)
            if written and current not in {-1, file, *numbers}:
                os.write(current, written)
        finally:
            os.close(file)


def _set_back(number: int, ours: int) -> None:
    """Have signals written to a number again, in place of ours."""
    try:
        meanwhile = signal.set_wakeup_fd(number)
    except (OSError, ValueError):
        # It was closed, or blocks by now.
        meanwhile = signal.set_wakeup_fd(-1)
    if meanwhile not in (ours, number):
        # A signal handler has just set another one.
        signal.set_wakeup_fd(meanwhile)


def _call_in_main_thread(numbers: Collection[int]) -> None:
    """Have the main thread do it before anything else, as soon as it runs Python code."""
    import ctypes

    done = threading.Event()

    def call(_: object) -> int:
        _pending.pop(id(function))
        _give_up(numbers)
        done.set()
        return 0

    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(call)
    _pending[id(function)] = function
    if ctypes.pythonapi.Py_AddPendingCall(function, None) == 0:
        done.wait(_PATIENCE)
    else:
        # There are too many (32).
        del _pending[id(function)]
