"""Asks the main thread, from any thread, for what it alone may do.

`signal.signal` works in the main thread alone, and Python-level signal handlers run there,
between any two bytecodes (signal, "Execution of Python signal handlers"): also between two that
hold a lock, which the handler would then wait for in vain. So there are moments in which the
main thread is shielded, and work is deferred until they are over.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar, final

from probate.system import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# A prototype of our own: attributes set on `ctypes.pythonapi`'s functions are everybody's.
_add_pending_call: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.py_object)(
    ("Py_AddPendingCall", ctypes.pythonapi)
)
#: What is called is `PyObject_IsTrue(main_thread)`: an `int (*)(void *)` of Python's own, so that
#: what `__bool__` raises is raised in the main thread. A ctypes callback would print and drop it.
_is_true: Final = ctypes.cast(ctypes.pythonapi.PyObject_IsTrue, ctypes.c_void_p)


@final
class MainThread:
    """Runs in the main thread what it is asked for. There is one, and so one of these."""

    def __init__(self) -> None:
        self.forget_parent()
        forget_in_forked_child(self)

    def forget_parent(self) -> None:
        """Have nothing to do; in a forked child, where the main thread is the one that forked."""
        self._ident = threading.main_thread().ident
        #: Short ones, that call nobody's code but ours.
        self._calls: deque[Callable[[], None]] = deque()
        #: Calling handlers, which may do anything.
        self._deliveries: deque[Callable[[], None]] = deque()
        self._is_delivering = False
        self._is_posted = False
        # Taken by the main thread only, never contended: a lock because its `with` is C code,
        # which no exception out of a signal handler can leave half done.
        self._shield = threading.Lock()

    @property
    def is_shielded(self) -> bool:
        """Whether the main thread must not run anybody's code just now."""
        return self._shield.locked()

    def run(self, *calls: Callable[[], None]) -> None:
        """Have the main thread make calls, shielded: at once if this is it and it can.

        Otherwise that is when its shield is down, or between two bytecodes. A main thread that
        is in a system call, or in C code, gets to it when it comes back to Python.
        """
        self._calls.extend(calls)
        if threading.get_ident() == self._ident:
            self.run_waiting()
        elif calls:
            self._post()

    def defer(self, delivery: Callable[[], None]) -> None:
        """Have the main thread, which is shielded, make a delivery right after that.

        What it raises is raised there.
        """
        self._deliveries.append(delivery)

    def shielded(self, function: Callable[[], T]) -> T:
        """Call `function`; what would disturb it, if this is the main thread, comes after it."""
        if threading.get_ident() != self._ident or self._shield.locked():
            return function()
        try:
            with self._shield:
                return function()
        finally:
            self.run_waiting()

    def run_waiting(self) -> None:
        """Make the calls and deliveries that wait, if this is the main thread, unshielded.

        Deliveries that come in while one is being made are made after it, by the same loop:
        within one another, a storm of signals would nest them without end.
        """
        if threading.get_ident() != self._ident or self._shield.locked():
            return
        while self._calls:
            with self._shield:
                self._make_call()
        if self._is_delivering:
            return
        try:
            self._is_delivering = True
            while self._deliveries:
                self._deliveries.popleft()()
        finally:
            self._is_delivering = False
            if self._deliveries:
                # An exception out of a handler ends the loop, but not what is left to do.
                self._post()

    def __bool__(self) -> bool:
        """Called by the interpreter, on the main thread, after `_post`."""
        self._is_posted = False
        self.run_waiting()
        return False

    def _make_call(self) -> None:
        try:
            call = self._calls.popleft()
        except IndexError:
            # A signal's handler has just made them all.
            return
        try:
            call()
        except Exception:
            raise
        except BaseException:
            # Ctrl-C and the like, which have nothing to do with it: it is to be done all the same.
            self._calls.appendleft(call)
            self._post()
            raise

    def _post(self) -> None:
        if self._is_posted:
            return
        self._is_posted = True
        if _add_pending_call(_is_true, self) != 0:
            # The interpreter's queue is full: the next occasion has to do.
            self._is_posted = False


main_thread: Final = MainThread()
