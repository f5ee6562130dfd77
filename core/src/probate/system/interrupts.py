"""Exceptions that fall in from outside of what runs, and a way to go on where none can fall in.

Python runs signal handlers between any two bytecodes of the main thread, and nowhere else
(Python's `signal`, "Execution of Python signal handlers"): another thread is safe from what they
raise.
"""

from __future__ import annotations

import _queue
import signal
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from probate.system.exiting import check_threads_run, start_call

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

T = TypeVar("T")


def is_main_thread() -> bool:
    """Tell whether this is the thread in which Python handles signals."""
    # Not by `current_thread()`, which makes one up for a thread that `threading` does not know.
    return threading.get_ident() == threading.main_thread().ident


def fell_in(error: BaseException) -> bool:
    """Tell whether an exception came from outside: Ctrl-C, an exit, a signal handler's own.

    What a signal handler raises is told by the handler's frame in its traceback.
    """
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return True
    handlers = None
    traceback = error.__traceback__
    while traceback is not None:
        if handlers is None:
            handlers = _handlers()
        if traceback.tb_frame.f_code in handlers:
            return True
        traceback = traceback.tb_next
    return False


def fallen_into(error: BaseException, before: BaseException | None) -> BaseException | None:
    """Return what fell in from outside of which `error` came, or None.

    `threading` may make a RuntimeError or a KeyError of its own of it. `before` is what was being
    handled already.
    """
    cause: BaseException | None = error
    while cause is not None and cause is not before:
        if fell_in(cause):
            return cause
        cause = cause.__context__
    return None


def _handlers() -> set[CodeType]:
    """Return the code of all Python functions that handle signals now."""
    found: set[CodeType] = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        if not callable(handler):
            continue  # SIG_DFL and its like are enums, whose class is called for other reasons
        while hasattr(handler, "func"):
            handler = handler.func  # a functools.partial
        if not hasattr(handler, "__code__"):
            # A method of an object, or an object that is called.
            handler = getattr(handler, "__func__", type(handler).__call__)
        if (code := getattr(handler, "__code__", None)) is not None:
            found.add(code)
    return found


@final
class Elsewhere(Generic[T]):
    """A call that is made once, on a thread of its own, and waited for whatever falls in here.

    A thread where no signal handler runs, with a stack of its own: what an exception has kept
    from coming to its end here comes to its end there. `interrupt` is the first exception that
    fell in meanwhile. Where no thread can be started, the call is made here. `submit` has it made
    by a thread that there is already: it gets the function to call there.
    """

    def __init__(
        self,
        function: Callable[[], T],
        submit: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        self._submit = submit or _call_on_new_thread
        # Taken by whoever makes the call: it is submitted twice if an exception fell between that
        # and the note of it.
        self._functions = [function]
        self._is_over = False
        # Of C, which no exception leaves half read, as it does Python's Condition.
        self._over: _queue.SimpleQueue[None] = _queue.SimpleQueue()
        self._answers: list[T] = []
        self._error: BaseException | None = None
        self.interrupt: BaseException | None = None

    def result(self) -> T:
        """Make the call, wait for it, and return what it returned; raise what it raised."""
        is_submitted = False
        # Told by a flag: an exception may fall in just after the queue was read.
        while not self._is_over:
            try:
                if not is_submitted:
                    self._submit(self._run)
                    is_submitted = True
                self._over.get()
            except BaseException as error:
                if not is_submitted and isinstance(error, RecursionError):
                    # There is no stack even to submit it, nor will there be here.
                    raise
                self.interrupt = self.interrupt or error
        failure, self._error = self._error, None
        try:
            if failure is not None:
                raise failure
        finally:
            # Its traceback has this frame, which must not keep it, and all that its callers hold.
            del failure
        return self._answers[0]

    def _run(self) -> None:
        try:
            function = self._functions.pop()
        except IndexError:
            return
        try:
            self._answers.append(function())
        except BaseException as error:
            self._error = error
        finally:
            self._is_over = True
            self._over.put(None)


def _call_on_new_thread(function: Callable[[], None]) -> None:
    if not start_call(function):
        function()


def start_thread(thread: threading.Thread) -> None:
    """Start a thread, whole or not at all, whatever falls in meanwhile.

    What falls into `Thread.start` leaves open whether the thread runs, and may leave `threading`
    with one that never ends. Raises RuntimeError if no thread can be started: it has no `ident`
    then. What fell in is raised when it has.
    """
    check_threads_run()
    if not is_main_thread():
        # No signal handler runs here.
        thread.start()
        return
    start = Elsewhere(thread.start)
    start.result()
    if start.interrupt is not None:
        raise start.interrupt
