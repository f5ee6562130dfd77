"""Signals that end the host: its manager is closed first, then the host ends as it would have.

The life of such a signal. The kernel gives it to any thread, and Python calls its handler in the
main thread, when that next runs Python code: on top of a spawn that waits for its launcher, of a
lock that is held, of an event loop whose tasks are yet to be cancelled, of the exit; or not at
all, if that is in C for ever, or was just about to block. So the handler neither closes nor waits,
nor is it relied upon: whoever is first of it and of a watch has a new thread do that, and the main
thread finishes what it has begun.

1. That thread closes the manager: from here on nobody acquires.
2. It waits for whoever was quicker: what a thread is about to acquire, or to release on its own, is
   nobody's at that moment, and would outlive the host.
3. The default action it takes itself. A Python function of before is called in the main thread
   alone, so the signal is sent once more, and again while that has not come to it.

A second signal ends the grace. A main thread that closes the manager itself, or exits, waits for
all of this. Where no thread can be started, the handler closes, and the host ends by an exit, which
takes what lies beneath the handler to its end.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final, final

from probate.process.hostexit import open_managers, wait_for_calls
from probate.system.deathwatch import death_watch
from probate.system.exiting import start_call
from probate.system.forking import forget_in_forked_child
from probate.system.future import Future
from probate.system.interrupts import is_main_thread
from probate.system.log import logger
from probate.system.loops import running_loop
from probate.system.ownsignals import fork_guard, take_default_action
from probate.system.signalwatch import SignalWatch
from probate.termination.waiting import Wait, run, run_async

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Generator, Iterable
    from types import FrameType

    from probate.process.hostexit import Unclosed

#: Seconds that the main thread has to come to a signal, until it is sent again.
_AGAIN: Final = 0.5


@final
class HostSignals:
    """Handles signals for one manager, from `install` until it is closed.

    What is ignored stays so. Handlers that others install over ours stay, and may pass signals on.
    """

    def __init__(self, manager: Unclosed, numbers: Iterable[int]) -> None:
        self._manager = manager
        self._numbers = numbers
        #: The dispositions of before.
        self._before: dict[int, Any] = {}
        #: Those that have come, to the handler and by the watch, until the first is passed on.
        self._arrived: list[int] = []
        self._noticed: list[int] = []
        #: Taken, for good, by whoever closes at the first; and who that is.
        self._claim = threading.Lock()
        self._closer = 0
        #: Whether signals are passed on at once: all is closed.
        self._is_over = False
        #: Done when the main thread need wait no more to pass it on.
        self._over: concurrent.futures.Future[None] = Future()
        forget_in_forked_child(self)

    def __repr__(self) -> str:
        return f"<probate handler of signals {', '.join(map(str, self._before))}>"

    def install(self) -> None:
        """Handle the signals from here on, but those that are ignored."""
        if self._numbers:
            # Later there may be no descriptor left to import it with.
            import ctypes  # noqa: F401
        for number in self._numbers:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                # First: it may arrive as soon as it is handled.
                self._before[number] = before
                fork_guard.add(number)
                signal.signal(number, self)
        if self._before:
            _watch.open(self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Have the manager closed, or pass a signal on. Python calls it in the main thread."""
        if self._is_over:
            self._pass_on(number, frame)
        else:
            self._arrived.append(number)
            self._serve()

    def notice(self, number: int) -> None:
        """Have the manager closed, whatever the main thread does. Never blocks."""
        if not self._is_over:
            self._noticed.append(number)
            # If no thread can be started, the handler will do it.
            start_call(self._close_and_end)

    def close(self) -> bool:
        """Give the signals back; return False if one is still to be passed on.

        What has arrived is waited for and passed on here, if this is the main thread and no event
        loop runs on it, which may be needed. Raises what a Python function of before raises.
        """
        if self._is_awaited() and running_loop() is None:
            run(_wait(self._over)).unwrap()
        return self._finish()

    async def aclose(self) -> bool:
        """Give the signals back as `close` does, without blocking the event loop."""
        if self._is_awaited():
            (await run_async(_wait(self._over))).unwrap()
        return self._finish()

    def chain(self, number: int) -> tuple[list[Unclosed], Any]:
        """Return the managers to close at a signal, and what comes after them."""
        before = self._before.get(number, signal.SIG_DFL)
        if not isinstance(before, HostSignals):
            return [self._manager], before
        others, before = before.chain(number)
        return [self._manager, *others], before

    def forget_parent(self) -> None:
        """Give the signals back in a forked child, which ends as it would have."""
        self._clear()
        self._is_over = True
        self._give_back()

    def _serve(self) -> None:
        if not start_call(self._close_and_end):
            self._close_and_end()

    def _close_and_end(self) -> None:
        """Close at the first signal, and end the host; end the grace at another."""
        if not self._claim.acquire(blocking=False):
            if max(len(self._arrived), len(self._noticed)) > 1:
                self._manager.end_grace()
            return
        self._closer = threading.get_ident()
        if (number := self._first()) == 0:
            # The main thread has closed just now, and passed it on.
            return
        managers, before = self.chain(number)
        closes = [each.close for each in managers]
        if before is signal.SIG_DFL:
            # No exit function is called where that ends the host.
            managers += open_managers.managers()
            closes.append(open_managers.close_all)
        for close in closes:
            try:
                close()
            except BaseException:
                logger.exception("closing a manager at signal %d failed", number)
        if is_main_thread():
            # No call gets on that lies beneath the handler: an exit does, and passes it on.
            self._over.set_result(None)
            if before is signal.SIG_DFL:
                raise SystemExit(128 + number)
            self._pass_on(number, None)
            return
        wait_for_calls(managers)
        if before is signal.SIG_DFL:
            take_default_action(number)
        self._is_over = True
        self._send(number)
        # Not before: the main thread, which may wait for it, passes on what has not got there.
        self._over.set_result(None)
        while self._is_pending():
            time.sleep(_AGAIN)
            self._send(number)

    def _send(self, number: int) -> None:
        """Send a signal once more, if it is still to be passed on."""
        if self._is_pending():
            if not isinstance(signal.getsignal(number), HostSignals):
                # Whoever has it now has this one as well.
                self._clear()
            os.kill(os.getpid(), number)

    def _is_awaited(self) -> bool:
        """Tell whether a signal has arrived, and it is for the caller to wait until it is over."""
        if not (self._is_pending() and is_main_thread()) or threading.get_ident() == self._closer:
            return False
        # Once more: what fell into the handler may have kept it from that.
        self._serve()
        return True

    def _finish(self) -> bool:
        is_main = is_main_thread()
        if is_main and self._over.done() and self._is_pending():
            # The main thread blocks it, or is where none is handled: it was not passed on.
            self._pass_on(0, None)
        if self._is_pending():
            return False
        # Given back by the main thread only; elsewhere the handler passes on from here on.
        self._is_over = True
        if is_main and self._before:
            self._give_back()
            _watch.close(self)
            death_watch.join_if_idle()
        return True

    def _is_pending(self) -> bool:
        return bool(self._arrived or self._noticed)

    def _first(self, number: int = 0) -> int:
        return (self._noticed or self._arrived or [number])[0]

    def _clear(self) -> None:
        self._arrived, self._noticed = [], []

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Give the signals back, and let the disposition of before have what has arrived."""
        number = self._first(number)
        self._clear()
        before = self._before.get(number, signal.SIG_DFL)
        is_ours = signal.getsignal(number) is self
        self._give_back()
        if callable(before):
            before(number, frame)
        elif is_ours or self._claim.locked():
            take_default_action(number)

    def _give_back(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) is self:
                signal.signal(number, before)


def _wait(over: concurrent.futures.Future[None]) -> Generator[Wait, None, None]:
    yield Wait([over], float("inf"))


def _notice(number: int) -> None:
    handler = signal.getsignal(number)
    if isinstance(handler, HostSignals):
        handler.notice(number)


_watch: Final = SignalWatch(_notice)
