"""The signal manager: handlers, masks and pending signals that belong to a process."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, final

from probate import (
    NotOwnedError,
    Outcome,
    OwnershipTable,
    ProbateError,
    pid_or_current,
    runs_inline,
)
from probate_signals.delivery import call_handler, raise_collected
from probate_signals.dispatch import Dispatcher
from probate_signals.entries import Blocked, Entry, Handler, Pending
from probate_signals.mainthread import main_thread
from probate_signals.signums import check_handler, checked_signum, checked_signums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate import CleanupStats, ResourceId
    from probate_signals.delivery import HandlerFunction


@final
class SignalManager:
    """Signals for logical processes: each has its handlers, its mask and its pending signals.

    A signal reaches a process in two ways. `send` delivers it to that one process, in the
    calling thread; no OS signal is involved. One that the kernel delivers to this program goes
    to every process that has registered for it, in the order of registration, in the main thread
    (signal, "Signals and threads"), and then to the Python or C handler that was installed before
    ours. A default action is not taken while anybody handles the signal.

    One OS-level handler per signal serves all. When its last owner is gone it is idle: the
    previous disposition is honoured from then on, and put back by the main thread as soon as that
    runs Python code; unless somebody has installed theirs over it, which is left alone.

    A process whose mask has a signal is sent it when it is unblocked: first in, first out.
    `send` queues each; of those that the kernel delivers, one is pending at most (signal(7)), and
    none for a process that is at its limit.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out. All may be called from any thread, and in handlers. A handler raises nothing that keeps
    others from being called: what handlers raise is raised when all have been called, a single
    exception as it is, several as an exception group.

    All raise TypeError for what is no signal number, and ValueError for a number that is no
    signal, SIGKILL and SIGSTOP, before anything is done.
    """

    def __init__(self) -> None:
        #: Each process's handlers, blocked and pending signals.
        self.table: OwnershipTable[Entry] = OwnershipTable(
            "signals", self._release, release_many=self._release_many, describe=str
        )
        #: By signal number, made when first needed.
        self._dispatchers: dict[int, Dispatcher] = {}

    # -- handlers ------------------------------------------------------------

    @pid_or_current
    def register(self, pid: int, signum: int, handler: HandlerFunction) -> None:
        """Have `handler(signum, frame)` called for a signal, as by `signal.signal`.

        A process may register many. `frame` is what an OS signal has interrupted, None when the
        signal was sent. Outside the main thread, `send` reaches the handler at once, and OS
        signals as soon as the main thread has run Python code and installed the OS-level handler.

        Raises TypeError for what cannot be called so (coroutine functions too),
        ProcessTerminatedError, ProcessNotFoundError, ResourceLimitExceeded; nothing is
        registered then.
        """
        dispatcher = self._dispatcher(checked_signum(signum))
        check_handler(handler)
        entry = Handler(pid, dispatcher.signum, handler)

        def make() -> Handler:
            dispatcher.add(entry)
            return entry

        self._acquire(entry, make)

    @pid_or_current
    def unregister(self, pid: int, signum: int, handler: HandlerFunction | None = None) -> None:
        """Drop a handler of this process, or all that it has for a signal. Idempotent.

        What is pending stays so. Where the pid is left out, give `handler` by name. Raises
        NotOwnedError if it is another process that has registered this very handler.
        """
        dispatcher = self._dispatcher(checked_signum(signum))
        if handler is not None:
            check_handler(handler)
        found = [
            (resource_id, entry)
            for resource_id, entry in self._owned(pid)
            if isinstance(entry, Handler)
            and entry.signum == dispatcher.signum
            and (handler is None or entry.function == handler)
        ]
        if not found and handler is not None:
            for other in list(dispatcher.handlers):
                if other.function == handler and other.pid != pid:
                    raise NotOwnedError(self.table.kind, pid, str(other), other.pid)
        for resource_id, entry in found:
            self._give_back(resource_id, entry)

    #: As other kinds call it.
    close = unregister

    # -- the mask ------------------------------------------------------------

    @pid_or_current
    def block(self, pid: int, signums: Iterable[int]) -> None:
        """Have signals queued for this process from now on; what is blocked stays so.

        Raises ProcessTerminatedError, ProcessNotFoundError, ResourceLimitExceeded; none is
        blocked then that was not before.
        """
        dispatchers = [self._dispatcher(signum) for signum in checked_signums(signums)]
        self.table.check_admitted(pid)
        added: list[Blocked] = []
        try:
            for dispatcher in dispatchers:
                if pid not in dispatcher.blocked:
                    added += self._block(pid, dispatcher)
        except BaseException:
            for blocked in added:
                self._unblock(blocked)
            raise

    @pid_or_current
    def unblock(self, pid: int, signums: Iterable[int]) -> None:
        """Have signals delivered to this process again, first of all those that are pending.

        They are delivered in the calling thread, in the order of their arrival. What is not
        blocked stays so.
        """
        for dispatcher in [self._dispatcher(signum) for signum in checked_signums(signums)]:
            blocked = dispatcher.blocked.get(pid)
            if blocked is not None:
                self._unblock(blocked)
        self._deliver_pending(pid)

    # -- sending -------------------------------------------------------------

    @pid_or_current
    def send(self, pid: int, signum: int) -> int:
        """Deliver a signal to this process alone; return how many handlers were called.

        They are called in the calling thread, oldest first. If the process has blocked the
        signal, it is queued and none is called; if it has no handler, nothing happens.

        Raises what its handlers raise, and ProcessTerminatedError, ProcessNotFoundError; and
        ResourceLimitExceeded if there is no room in the queue.
        """
        dispatcher = self._dispatcher(checked_signum(signum))
        self.table.check_admitted(pid)
        if pid in dispatcher.blocked:
            pending = Pending(pid, dispatcher.signum)
            main_thread.shielded(lambda: self.table.add(pid, pending))
            # Somebody may have unblocked it, and looked for what is pending before it was there.
            return 0 if pid in dispatcher.blocked else self._deliver_pending(pid)
        errors: list[BaseException] = []
        handlers = [entry for _, entry in self._owned(pid) if isinstance(entry, Handler)]
        called = self._call(dispatcher.signum, handlers, errors)
        raise_collected(errors)
        return called

    @pid_or_current
    def pending(self, pid: int) -> list[int]:
        """The numbers of the signals that wait to be unblocked, oldest first."""
        return [entry.signum for _, entry in self._owned(pid) if isinstance(entry, Pending)]

    # -- for the resource's hooks --------------------------------------------

    @runs_inline
    def quiesce(self, pid: int) -> None:
        """Deliver nothing more to `pid`. A handler that runs already is not interrupted."""
        dispatchers = self._dispatchers
        updates = [
            dispatchers[entry.signum].update
            for entry in self.table.resources(pid)
            if isinstance(entry, Handler) and not dispatchers[entry.signum].discard(entry)
        ]
        main_thread.run(*updates)

    def cleanup(self, pid: int) -> CleanupStats:
        """Drop all handlers of `pid`, its pending signals and its mask."""
        return main_thread.shielded(lambda: self.table.cleanup(pid))

    # -- inside --------------------------------------------------------------

    def _dispatcher(self, signum: int) -> Dispatcher:
        found = self._dispatchers.get(signum)
        if found is not None:
            return found
        return self._dispatchers.setdefault(signum, Dispatcher(signum, self._queue_arrival))

    def _owned(self, pid: int) -> list[tuple[ResourceId, Entry]]:
        """All that `pid` owns, oldest first."""
        return self.table.owned(pid)[::-1]

    def _block(self, pid: int, dispatcher: Dispatcher) -> list[Blocked]:
        """Block one signal; empty if another thread was quicker."""
        blocked = Blocked(pid, dispatcher.signum)

        def make() -> Blocked:
            if dispatcher.blocked.setdefault(pid, blocked) is not blocked:
                raise _AlreadyBlockedError
            return blocked

        try:
            self._acquire(blocked, make)
        except _AlreadyBlockedError:
            return []
        return [blocked]

    def _acquire(self, entry: Entry, make: Callable[[], Entry]) -> None:
        """Own what `make` puts in its place; if even a Ctrl-C comes in between, it is undone."""

        def acquire() -> None:
            try:
                self.table.acquire(entry.pid, make)
            except BaseException:
                self._release(entry)
                raise

        main_thread.shielded(acquire)

    def _queue_arrival(self, blocked: Blocked) -> None:
        """Queue a signal from the kernel; one for a process that may not own it is dropped."""
        pending = Pending(blocked.pid, blocked.signum)

        def add() -> None:
            with contextlib.suppress(ProbateError):
                self.table.add(pending.pid, pending)
                blocked.has_arrival = True

        main_thread.shielded(add)
        if blocked.pid not in self._dispatcher(blocked.signum).blocked:
            self._deliver_pending(blocked.pid)

    def _deliver_pending(self, pid: int) -> int:
        """Deliver what is pending and not blocked (any more); return how many calls that made."""
        owned = self._owned(pid)
        handlers = [entry for _, entry in owned if isinstance(entry, Handler)]
        errors: list[BaseException] = []
        called = 0
        for resource_id, entry in owned:
            if not isinstance(entry, Pending):
                continue
            # A handler may have blocked it again; another thread may be delivering it.
            is_blocked = pid in self._dispatcher(entry.signum).blocked
            if not is_blocked and self._give_back(resource_id, entry):
                called += self._call(entry.signum, handlers, errors)
        raise_collected(errors)
        return called

    def _call(self, signum: int, handlers: list[Handler], errors: list[BaseException]) -> int:
        """Call those handlers of one process that are for this signal, and still registered."""
        dispatcher = self._dispatcher(signum)
        called = 0
        for handler in handlers:
            if handler.signum == signum and handler in dispatcher.handlers:
                call_handler(handler.function, signum, None, errors)
                called += 1
        return called

    def _unblock(self, blocked: Blocked) -> None:
        # Not owned: another thread is about to own it, or to unblock it, and so comes after us.
        with contextlib.suppress(NotOwnedError):
            self._give_back(self.table.find(blocked.pid, blocked), blocked)

    def _give_back(self, resource_id: ResourceId, entry: Entry) -> bool:
        """End an ownership and release; False if somebody else has, or is just doing so."""

        def give_back() -> bool:
            try:
                return self.table.give_back_id(entry.pid, resource_id) is Outcome.RELEASED
            finally:
                # Even if a Ctrl-C comes in between, or another thread has only taken it out yet.
                self._release(entry)

        return main_thread.shielded(give_back)

    def _release_many(self, entries: list[Entry]) -> None:
        """Take all out of their places, newest first, and off the list."""
        dispatchers = self._dispatchers
        while entries:
            entry = entries[-1]
            if not isinstance(entry, Handler) or not dispatchers[entry.signum].discard(entry):
                self._release(entry)
            entries.pop()

    def _release(self, entry: Entry) -> None:
        """Take something out of its place, if it is there."""
        dispatcher = self._dispatcher(entry.signum)
        if isinstance(entry, Handler):
            dispatcher.remove(entry)
        elif isinstance(entry, Blocked) and dispatcher.blocked.get(entry.pid) is entry:
            dispatcher.blocked.pop(entry.pid, None)


class _AlreadyBlockedError(Exception):
    """The signal is blocked already."""
