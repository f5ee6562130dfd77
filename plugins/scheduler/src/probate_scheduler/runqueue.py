"""The run queue, and the thread that hands out its time slices.

One lock guards the queue, and what stops or continues a process holds it: what an entry says of
its process is what the kernel was told. Nothing that blocks is done under it. Starting a reaper
and telling it whom to guard can block, so that comes before, under a lock of its own.

The thread exists while anything is on the queue, and sleeps until the end of the next slice, or
until something changes. While no more processes want to run than there are slots, nobody is
stopped and it sleeps on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from probate import Outcome
from probate.journal import host_reaper
from probate.system import death_watch, forget_in_forked_child, start_thread
from probate_scheduler.dispatcher import Dispatch, Dispatcher
from probate_scheduler.entry import OPEN_END, RunQueueEntry
from probate_scheduler.errors import ReaperUnavailableError
from probate_scheduler.figures import SchedulerStatistics, sums_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate import SchedulingPolicy
    from probate.journal import Reaper, ReaperLoan
    from probate_scheduler.figures import EntryStatistics

logger = logging.getLogger("probate")

#: Seconds for which nobody is stopped after a failure.
_RECOVERY: Final = 1.0

#: Seconds that a caller waits for the thread and the reaper to be gone.
_LEAVING: Final = 10.0


@final
class RunQueue:
    """OS processes that share the slots, slice by slice."""

    def __init__(self, on_death: Callable[[RunQueueEntry], object]) -> None:
        self._on_death = on_death
        self._dispatcher = Dispatcher()
        self._inherited: list[object] = []
        self._start_afresh()
        forget_in_forked_child(self)

    def _start_afresh(self) -> None:
        # Reentrant, as a signal handler may terminate processes while its thread holds it.
        self._changed = threading.Condition(threading.RLock())
        #: By number.
        self._entries: dict[int, RunQueueEntry] = {}
        #: The latest one, and whether it has not yet found the queue empty.
        self._thread: threading.Thread | None = None
        self._is_serving = False
        self._loan: ReaperLoan | None = None
        #: Serialises the starting of reapers.
        self._guarding = threading.RLock()
        #: Calls to reapers, which may block: made by the thread, in this order.
        self._errands: list[Callable[[], object]] = []
        #: When, on the monotonic clock, somebody may be stopped again after a failure.
        self._slicing_from = 0.0
        #: The sums of those that have left.
        self._left: dict[str, Any] = {}

    def forget_parent(self) -> None:
        """Schedule nothing, in a forked child; the parent's processes are the parent's."""
        self._inherited += [self._entries, self._thread]
        self._start_afresh()

    # -- for the manager -------------------------------------------------------

    def configure(self, policy: SchedulingPolicy, quantum: float, slots: int) -> None:
        """Schedule otherwise from now on."""
        with self._changed:
            dispatcher = self._dispatcher
            dispatcher.policy, dispatcher.quantum, dispatcher.slots = policy, quantum, slots
            for entry in self._entries.values():
                entry.end_slice(time.monotonic())
            self._changed.notify_all()

    def prepare(self, entry: RunQueueEntry) -> None:
        """Have a newcomer guarded if somebody will have to be stopped.

        Raises ReaperUnavailableError.
        """
        with self._changed:
            is_contended = len(self._entries) >= self._dispatcher.slots
        if is_contended:
            self.guard([entry])

    def put(self, entry: RunQueueEntry) -> None:
        """Put an entry on the queue, unless it was removed by now."""
        with self._changed:
            if entry.is_removed:
                return
            self._entries[entry.number] = entry
            entry.account()
            self._dispatcher.enqueue(entry)
            try:
                death_watch.watch(entry.process.fileno(), lambda: self._on_death(entry))
                self._ensure_thread()
            except BaseException:
                self.remove(entry)
                raise
            self._changed.notify_all()

    def remove(self, entry: RunQueueEntry) -> None:
        """Take an entry off the queue for good, and continue its process. Idempotent."""
        with self._changed:
            if entry.is_removed:
                return
            try:
                with contextlib.suppress(PermissionError):
                    entry.resume()
            finally:
                self._left = sums_of([entry.statistics()], self._left)
                entry.is_removed = True
                self._entries.pop(entry.number, None)
                self._unguard(entry)
                self._changed.notify_all()

    def release(self, entry: RunQueueEntry) -> Outcome:
        """Take an entry off the queue, put back its niceness and affinity, let go of its process.

        Idempotent. Raises PermissionError.
        """
        with self._changed:
            self.remove(entry)
            try:
                if entry.process.has_exited():
                    return Outcome.RELEASED if entry.is_taken else Outcome.ALREADY_GONE
                try:
                    entry.niceness.restore()
                finally:
                    entry.affinity.restore()
            finally:
                if (pidfd := entry.process.fileno()) != -1:
                    death_watch.forget(pidfd)
                    entry.process.close()
        return Outcome.RELEASED

    def pause(self, entry: RunQueueEntry) -> None:
        """Stop it until `resume`. Raises ReaperUnavailableError, PermissionError."""
        self.guard([entry])
        with self._changed:
            if entry.is_removed or entry.is_paused:
                return
            entry.account()
            entry.end_slice(time.monotonic())
            entry.is_paused = True
            if entry.reaper is self._reaper:
                entry.stop()
            self._changed.notify_all()

    def resume(self, entry: RunQueueEntry) -> None:
        """Let it take part again, from its next turn on."""
        with self._changed:
            if entry.is_paused:
                entry.account()
                entry.is_paused = False
                self._dispatcher.enqueue(entry)
                self._changed.notify_all()

    def adjust(
        self, entry: RunQueueEntry, *, priority: int | None = None, weight: int | None = None
    ) -> None:
        """Change how it is scheduled, from the next choice on."""
        with self._changed:
            if priority is not None:
                entry.priority = priority
            if weight is not None:
                # What it has had of its slice was had at the old weight.
                entry.charge(time.monotonic())
                entry.weight = weight
            self._changed.notify_all()

    def tune(self, entry: RunQueueEntry, change: Callable[[], None]) -> bool:
        """Change its niceness or affinity; False if it has left the queue. Raises OSError."""
        with self._changed:
            if not entry.is_removed:
                change()
            return not entry.is_removed

    def statistics(self, entry: RunQueueEntry) -> EntryStatistics:
        """Return the figures of one."""
        with self._changed:
            return entry.statistics()

    def totals(self) -> SchedulerStatistics:
        """Return the figures of all."""
        with self._changed:
            entries = [entry.statistics() for entry in self._entries.values()]
            return SchedulerStatistics(
                policy=self._dispatcher.policy,
                quantum=self._dispatcher.quantum,
                slots=self._dispatcher.slots,
                entries=len(entries),
                **sums_of(entries, self._left),
            )

    def join_if_idle(self) -> None:
        """Wait until the thread and the reaper are gone, if the queue is empty."""
        with self._changed:
            thread = None if self._entries else self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LEAVING)

    # -- guarding --------------------------------------------------------------

    def guard(self, entries: Iterable[RunQueueEntry]) -> None:
        """Have the reaper guard these, starting one if there is none. May block.

        Raises ReaperUnavailableError.
        """
        with self._guarding:
            reaper = self._reaper or self._borrow_reaper()
            for entry in entries:
                with self._changed:
                    if entry.is_removed or entry.reaper is reaper:
                        continue
                    # A descriptor of its own: the entry's may be closed, and its number given
                    # to another, before it is sent.
                    pidfd = os.dup(entry.process.fileno())
                try:
                    reaper.guard(entry.number, pidfd)
                except OSError as error:
                    problem = f"it takes no more requests: {error}"
                    raise ReaperUnavailableError(problem) from error
                finally:
                    os.close(pidfd)
                self._note_guarded(entry, reaper)

    def _note_guarded(self, entry: RunQueueEntry, reaper: Reaper) -> None:
        with self._changed:
            entry.reaper = reaper
            if entry.is_removed:
                # By another thread, since it was last looked at.
                self._unguard(entry)

    def _unguard(self, entry: RunQueueEntry) -> None:
        if entry.reaper is not None:
            self._errands.append(partial(entry.reaper.forget, entry.number))
            entry.reaper = None

    @property
    def _reaper(self) -> Reaper | None:
        loan = self._loan
        return None if loan is None or loan.is_over else loan.reaper

    def _borrow_reaper(self) -> Reaper:
        try:
            loan = host_reaper.lend(self._reaper_died)
        except OSError as error:
            raise ReaperUnavailableError(str(error)) from error
        with self._changed:
            self._loan = loan
            try:
                # Which gives it back, too, when the queue is empty.
                self._ensure_thread()
            except BaseException:
                self._loan = None
                loan.give_back()
                raise
        return loan.reaper

    def _reaper_died(self, loan: ReaperLoan) -> None:
        with self._changed:
            if self._loan is not loan:
                return
            logger.warning("the reaper has died; nobody is stopped without another")
            self._loan = None
            self._let_all_run()
            self._changed.notify_all()

    # -- the thread ------------------------------------------------------------

    def _ensure_thread(self) -> None:
        if not self._is_serving:
            # A daemon: it must not keep the interpreter from exiting. The reaper does the rest.
            thread = threading.Thread(
                target=self._serve, args=(self._thread,), name="probate-scheduler", daemon=True
            )
            before, self._thread, self._is_serving = self._thread, thread, True
            try:
                start_thread(thread)
            except BaseException:
                if thread.ident is None:
                    self._thread, self._is_serving = before, False
                raise

    def _serve(self, predecessor: threading.Thread | None) -> None:
        try:
            while not self._leaves():
                try:
                    self._hand_out()
                except Exception as error:
                    logger.exception("nobody is stopped for %s s: %s", _RECOVERY, error)  # noqa: TRY401  the last line is what is read
                    with self._changed:
                        self._slicing_from = time.monotonic() + _RECOVERY
        except BaseException:
            logger.exception("the scheduler has failed; everybody runs, until somebody is added")
            self._leaves(by_force=True)
        finally:
            # Which may be on its way out: whoever joins this thread joins it as well.
            if predecessor is not None:
                predecessor.join()

    def _leaves(self, *, by_force: bool = False) -> bool:
        """End this thread, and need no reaper, if the queue is empty; whether it is."""
        with self._changed:
            if self._entries and not by_force:
                return False
        # Not while somebody starts a reaper, or has just been given this one.
        with self._guarding, self._changed:
            if self._entries and not by_force:
                return False
            self._let_all_run()
            errands, self._errands = self._errands, []
            if self._loan is not None:
                # After it was told whom to forget: who has left may since have been stopped by
                # others, which is not a reaper's to undo.
                errands.append(self._loan.give_back)
            self._loan, self._is_serving = None, False
        for errand in errands:
            errand()
        return True

    def _hand_out(self) -> None:
        """Hand out slices, and wait until the next one ends; or do what that takes first."""
        with self._changed:
            wake_at, unguarded = self._dispatch()
            errands, self._errands = self._errands, []
            if self._entries and not (unguarded or errands):
                left = wake_at - time.monotonic()
                if left > 0:
                    self._changed.wait(None if left == OPEN_END else left)
                return
        for errand in errands:
            errand()
        if unguarded:
            self.guard(unguarded)

    def _dispatch(self) -> Dispatch:
        now = time.monotonic()
        if now < self._slicing_from:
            self._let_all_run()
            return Dispatch(self._slicing_from)
        done = self._dispatcher.dispatch(self._entries.values(), self._reaper, now)
        for entry in self._entries.values():
            if entry.is_held:
                # Should the host die, it stays as it was made by whoever stopped it.
                self._unguard(entry)
        return done

    def _let_all_run(self) -> None:
        for entry in self._entries.values():
            with contextlib.suppress(OSError):
                entry.resume()
