"""Threads while the interpreter exits.

When its exit functions have run, daemon threads run no more, and no new thread ever gets to run
(`Py_FinalizeEx`): whoever waits for one waits for ever. Python 3.12 starts none from even before
the exit functions on (gh-104690); 3.13 does again.
"""

from __future__ import annotations

import _thread
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_STARTS_NONE: Final = sys.hexversion >> 16 == 0x030C

#: What C calls of ours, for as long as a thread may run it.
_started: Final[list[object]] = []


def is_exiting() -> bool:
    """Tell whether exit functions are being run, or have been: only daemon threads are left."""
    return not threading.main_thread().is_alive()


def check_threads_run() -> None:
    """Raise RuntimeError, as for a thread that cannot be started, if none gets to run any more."""
    if sys.is_finalizing():
        raise RuntimeError("the interpreter has run its exit functions: no thread runs any more")


def join_thread(thread: threading.Thread) -> None:
    """Wait until a thread has ended, or at once if none runs any more."""
    if not sys.is_finalizing():
        thread.join()


def start_call(function: Callable[[], object]) -> bool:
    """Have a daemon thread call `function`; return False if none can be started.

    It is started in one step, of C: a signal handler runs before or after it.
    """
    try:
        check_threads_run()
        _thread.start_new_thread(function, ())
    except RuntimeError:
        return start_at_exit(function)
    return True


def start_at_exit(function: Callable[[], object]) -> bool:
    """Have a new thread call `function` where Python 3.12 starts none; return False elsewhere.

    For calls that may hang: the exit would hang with them. The interpreter is whole as long as
    exit functions run, and the C API starts threads.
    """
    if not _STARTS_NONE or not is_exiting():
        return False
    import ctypes

    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    start: Any = ctypes.PYFUNCTYPE(ctypes.c_ulong, kind, ctypes.c_void_p)(
        ("PyThread_start_new_thread", ctypes.pythonapi)
    )
    called = kind(lambda _: function())
    _started.append(called)
    # Its answer for "none can be started": PYTHREAD_INVALID_THREAD_ID.
    return bool(start(called, None) != ctypes.c_ulong(-1).value)
