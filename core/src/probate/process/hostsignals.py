"""Signals that end the host: its manager is closed first, then the host ends as it would have.

Python calls a handler in the main thread, on top of whatever that is doing (Python's `signal`,
"Execution of Python signal handlers"): a spawn that is half done, a lock that is held, an event
loop whose tasks are yet to be cancelled. So the handler neither closes the manager nor waits for
it. A thread of its own closes, and the main thread goes on: it finishes what it has begun, and
runs its loop. When all is closed, the signal is sent once more, which wakes the main thread from
the system call that it may be in (signal(7)), and now goes to the disposition of before.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import os
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from probate.process.hostexit import open_managers
from probate.system.arguments import checked_int
from probate.system.exiting import call_on_thread
from probate.system.forking import forget_in_forked_child
from probate.system.log import logger
from probate.system.loops import running_loop
from probate.termination.waiting import Wait, run, run_async

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from types import FrameType

#: What asks a program to end; not all of them are there on every system.
DEFAULT_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)
)

#: Signals that no program can handle (signal(7)).
_UNCATCHABLE: Final = ("SIGKILL", "SIGSTOP")


class Closable(Protocol):
    """Terminates all: what is needed of a manager."""

    def close(self) -> None:
        """Terminate all."""

    def end_grace(self) -> None:
        """Give nobody a grace any more."""


def checked_signals(numbers: Iterable[object]) -> tuple[int, ...]:
    """Return each signal number once. Raises TypeError or ValueError for what is none to handle."""
    found: dict[int, None] = {}
    for each in numbers:
        number = checked_int("a signal's number, such as signal.SIGTERM,", each)
        if number not in signal.valid_signals():
            raise ValueError(f"{number} is no signal number here")
        if signal.Signals(number).name in _UNCATCHABLE:
            raise ValueError(f"{signal.Signals(number).name} cannot be handled by any program")
        found[number] = None
    return tuple(found)


def check_installable(numbers: Sequence[int]) -> None:
    """Raise RuntimeError if these signals cannot be handled: from here, or at all."""
    if numbers and threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "with_signals() needs the main thread, where alone Python sets signal handlers: build "
            "the manager there, or without it"
        )
    for number in numbers:
        if signal.getsignal(number) is None:
            raise RuntimeError(
                f"signal {number} is handled by C code, which Python can neither call nor put "
                "back: leave it out of with_signals()"
            )


@final
class _ForkGuard:
    """Blocks signals while their handlers are copied to a forked child, which gives them back.

    What the child gets before that would be lost: Python forgets there which signals have arrived.
    """

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._masks = threading.local()

    def add(self, number: int) -> None:
        """Block this one from now on."""
        if not self._numbers and hasattr(os, "register_at_fork"):
            # Children give the signals back by what was registered before, and so is called first.
            os.register_at_fork(
                before=self._block, after_in_parent=self._restore, after_in_child=self._restore
            )
        self._numbers.add(number)

    def _block(self) -> None:
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def _restore(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)


_fork_guard: Final = _ForkGuard()


@final
class HostSignals:
    """Handles signals for one manager, from `install` until it is closed.

    The first closes the manager; when that is done, the disposition of before has it: the default
    action is taken, or a Python function called. Another one meanwhile ends the grace. What is
    ignored stays so. Handlers that others install over ours stay, and may pass signals on to it.
    """

    def __init__(self, manager: Closable, numbers: Iterable[int]) -> None:
        #: None when it is closed, and signals are passed on at once.
        self._manager: Closable | None = manager
        self._numbers = numbers
        #: The dispositions of before.
        self._before: dict[int, Any] = {}
        #: Taken, for good, by whoever closes at the first signal; and who that is.
        self._claim = threading.Lock()
        self._closer = 0
        #: That signal, until the disposition of before has it.
        self._arrived: list[int] = []
        #: Whether all is closed that is closed at it; and a future of that.
        self._is_over = False
        self._over: concurrent.futures.Future[None] = concurrent.futures.Future()
        forget_in_forked_child(self)

    def __repr__(self) -> str:
        return f"<probate handler of signals {', '.join(map(str, self._before))}>"

    def install(self) -> None:
        """Handle the signals from here on, but those that are ignored."""
        for number in self._numbers:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                # First: it may arrive as soon as it is handled.
                self._before[number] = before
                _fork_guard.add(number)
                signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Have the manager closed, or pass a signal on. Python calls it in the main thread."""
        manager = self._manager
        if manager is None or self._is_over:
            self._pass_on(number, frame)
        else:
            call_on_thread(partial(self._close, manager, number))

    def close(self) -> bool:
        """Give the signals back; return False if one is still to be passed on.

        What has arrived is waited for and passed on here, if this is the main thread and no event
        loop runs on it, which may be needed. Raises what a Python function of before raises.
        """
        if self._is_awaited() and running_loop() is None:
            run(self._wait()).unwrap()
        return self._finish()

    async def aclose(self) -> bool:
        """Give the signals back as `close` does, without blocking the event loop."""
        if self._is_awaited():
            (await run_async(self._wait())).unwrap()
        return self._finish()

    def forget_parent(self) -> None:
        """Give the signals back in a forked child, which ends as it would have."""
        self._manager = None
        self._claim = threading.Lock()
        self._arrived = []
        self._is_over = False
        self._give_back()

    # -- inside --------------------------------------------------------------

    def _close(self, manager: Closable, number: int) -> None:
        """Close the manager, and send the signal once more; or end the grace, if others close."""
        if not self._claim.acquire(blocking=False):
            manager.end_grace()
            return
        self._closer = threading.get_ident()
        self._arrived.append(number)
        try:
            manager.close()
            if self._before.get(number) is signal.SIG_DFL:
                # No exit function is called at such an end.
                open_managers.close_all()
        except BaseException:
            logger.exception("closing a manager at signal %d failed", number)
        finally:
            self._is_over = True
            os.kill(os.getpid(), number)
            self._over.set_result(None)

    def _is_awaited(self) -> bool:
        """Tell whether a signal has arrived, and it is for the caller to wait until it is over."""
        me = threading.current_thread()
        return self._claim.locked() and me is threading.main_thread() and me.ident != self._closer

    def _wait(self) -> Generator[Wait, None, None]:
        yield Wait([self._over], float("inf"))

    def _finish(self) -> bool:
        is_main = threading.current_thread() is threading.main_thread()
        if not self._claim.locked():
            # Whoever handles it in vain, since it can be given back by the main thread only,
            # passes it on.
            self._manager = None
            if is_main:
                self._give_back()
        elif self._is_over and self._arrived and is_main:
            # The main thread blocks it, or somebody has taken it from us: it was not passed on.
            self._pass_on(self._arrived[0], inspect.currentframe())
        return not self._arrived

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Give the signals back, and let the disposition of before have what has arrived."""
        if self._arrived:
            number = self._arrived.pop()
        before = self._before.get(number)
        is_ours = signal.getsignal(number) is self
        self._give_back()
        if callable(before):
            before(number, frame)
        elif is_ours or self._is_over:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            if os.getpid() == 1:
                # The init process of a container gets no default action (pid_namespaces(7)).
                raise SystemExit(128 + number)

    def _give_back(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) is self:
                signal.signal(number, before)
