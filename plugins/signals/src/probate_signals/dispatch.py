"""One signal, its OS-level handler, and whom it is delivered to.

Nothing here takes a lock: an OS-level handler runs between any two bytecodes of the main
thread, and must not wait for what it has interrupted. Each look and each change is one operation
on a dict, which other threads see whole.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, final

from probate.system import forget_in_forked_child
from probate_signals.delivery import call_handler, raise_collected
from probate_signals.disposition import Disposition
from probate_signals.mainthread import main_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from probate_signals.entries import Blocked, Handler


@final
class Dispatcher:
    """Delivers one signal to all of its handlers, oldest first.

    `queue` is called for a process that has the signal blocked. The OS-level handler is
    installed with the first handler and taken out with the last, by the main thread, as soon as
    it can. A forked child starts without handlers.
    """

    __slots__ = (
        "__weakref__",
        "_is_installed",
        "_is_wanted",
        "_os_handler",
        "_queue",
        "blocked",
        "handlers",
        "passing",
        "signum",
    )

    def __init__(self, signum: int, queue: Callable[[Blocked], None]) -> None:
        self.signum = signum
        #: By pid, whoever has the signal blocked.
        self.blocked: dict[int, Blocked] = {}
        #: Who gets signals, in order of registration; a dict as an ordered set.
        self.handlers: dict[Handler, None] = {}
        #: OS-level handlers that pass a signal on just now, each with the frame it interrupted.
        self.passing: list[tuple[OsHandler, FrameType | None]] = []
        self._queue = queue
        #: Whether somebody has registered since the last update.
        self._is_wanted = False
        #: Whether there is an OS-level handler to be taken out when nobody is left.
        self._is_installed = False
        #: The OS-level handler as installed last.
        self._os_handler: OsHandler | None = None
        forget_in_forked_child(self)

    def add(self, handler: Handler) -> None:
        """Have a handler get signals from now on."""
        self.handlers[handler] = None
        self._is_wanted = True
        self.schedule_update()

    def remove(self, handler: Handler) -> None:
        """Have a handler get no more signals. Idempotent."""
        if not self.discard(handler):
            self.schedule_update()

    def discard(self, handler: Handler) -> bool:
        """As `remove`, but False if it is left to the caller to have the main thread `update`."""
        self.handlers.pop(handler, None)
        return bool(self.handlers) or not self._is_installed

    def schedule_update(self) -> None:
        """Have the main thread install the OS-level handler, or take it out, as is needed.

        What others install over it stays. But whoever registers after that is to get signals
        too: then it is installed anew, over theirs, and passes on to them.
        """
        main_thread.run(self.update)

    def deliver(self, frame: FrameType | None, errors: list[BaseException]) -> bool:
        """Call all handlers, or queue for their processes; whether there was any."""
        is_handled = False
        for handler in list(self.handlers):
            if handler not in self.handlers:
                # One before it in this round has ended its registration.
                continue
            is_handled = True
            blocked = self.blocked.get(handler.pid)
            if blocked is None:
                call_handler(handler.function, self.signum, frame, errors)
            elif not blocked.has_arrival:
                try:
                    self._queue(blocked)
                except BaseException as error:
                    errors.append(error)
        return is_handled

    def forget_parent(self) -> None:
        """Deliver to nobody, in a forked child; the OS-level handler has come along, idle."""
        self.blocked = {}
        self.passing = []
        self.handlers = {}

    def update(self) -> None:
        """Install the OS-level handler, or take it out; for the main thread, shielded."""
        while True:
            installed = self._os_handler
            if self.handlers:
                if not self._is_wanted:
                    return
                # First of all: whoever removes the last handler is to have us look again.
                self._is_installed = True
                if installed is None or signal.getsignal(self.signum) is not installed:
                    self._os_handler = installed = OsHandler(self)
                    installed.below.replace_by(installed)
                # Only now: if an exception out of another signal's handler ends us before, the
                # next update tries again.
                self._is_wanted = False
            elif installed is not None and installed.below.is_replaced_by(installed):
                installed.take_out()
                # Whoever registered meanwhile has found it still installed.
                self._is_wanted = True
                self._is_installed = False
                if not self.handlers:
                    return
            else:
                # Somebody's may be over ours, and be taken out by the next update.
                return


@final
class OsHandler:
    """Our OS-level handler, installed once, and the disposition that it was installed over.

    Where others have installed theirs over ours, and we again over theirs, several of one
    dispatcher are in one chain. Each passes the signal on, and the first to get it delivers it.
    """

    __slots__ = ("below", "dispatcher")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        #: What it was installed over.
        self.below = Disposition(dispatcher.signum)

    def __repr__(self) -> str:
        return f"<probate_signals handler of signal {self.dispatcher.signum}>"

    def __call__(self, _signum: int, frame: FrameType | None) -> None:
        """Called by Python in the main thread, or by whoever has installed theirs over ours."""
        if self.below.is_raising:
            # We are calling a C handler, and this is what it makes of the signal. One that truly
            # arrives just now is taken for it, as if the kernel had merged the two (signal(7)).
            self.below.take_back(frame)
            return
        # Python calls a handler right on top of the frame that the signal has interrupted.
        caller = sys._getframe(1)  # noqa: SLF001  inspect.currentframe() would leave a cycle
        arrival = _Arrival(self, frame, is_direct=caller is frame)
        if main_thread.is_shielded:
            main_thread.defer(partial(self._deliver, arrival))
        else:
            self._deliver(arrival)

    def take_out(self) -> None:
        """Put back what was there before, past others of ours that are idle by now."""
        below = self.below
        while isinstance(ours := below.function, OsHandler) and not ours.dispatcher.handlers:
            below = ours.below
        below.put_back()

    def pass_on(self, arrival: _Arrival) -> None:
        """Deliver a signal, and pass it on down the chain.

        A frame is not interrupted again before the handlers for its interruption have returned.
        So one that comes round once more means that somebody chains to us.
        """
        passing = self.dispatcher.passing
        step = (self, arrival.frame)
        if step in passing:
            # Somebody's handler is both over and beneath ours: the chain is a circle.
            return
        is_first = all(frame is not arrival.frame for _, frame in passing)
        try:
            passing.append(step)
            if is_first and self.dispatcher.deliver(arrival.frame, arrival.errors):
                arrival.is_handled = True
            if isinstance(beneath := self.below.function, OsHandler):
                beneath.pass_on(arrival)
            else:
                self._carry_out(arrival)
        finally:
            if step in passing:
                passing.remove(step)

    def _deliver(self, arrival: _Arrival) -> None:
        self.pass_on(arrival)
        raise_collected(arrival.errors)

    def _carry_out(self, arrival: _Arrival) -> None:
        """Pass a signal on to the disposition at the end of the chain."""
        is_last_resort = arrival.is_direct and not arrival.is_handled
        if is_last_resort:
            # Its last owner is gone. First put back what was there, if that is still to be done.
            arrival.entered.dispatcher.schedule_update()
        try:
            self.below.carry_out(arrival.frame, may_raise=is_last_resort)
        except BaseException as error:
            arrival.errors.append(error)


@final
class _Arrival:
    """A signal on its way down a chain of handlers."""

    __slots__ = ("entered", "errors", "frame", "is_direct", "is_handled")

    def __init__(self, entered: OsHandler, frame: FrameType | None, *, is_direct: bool) -> None:
        #: Where it came to the first of ours.
        self.entered = entered
        #: What it has interrupted.
        self.frame = frame
        #: Whether it came there from Python itself, not from somebody's handler that chains to
        #: us. Whether ours is installed says less: it may be taken out at any moment, and yet
        #: signals be on their way.
        self.is_direct = is_direct
        #: Whether anybody of ours has taken it.
        self.is_handled = False
        #: What handlers have raised.
        self.errors: list[BaseException] = []
