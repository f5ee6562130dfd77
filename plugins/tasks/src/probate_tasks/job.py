"""What the table keeps of a task or call: whether it was asked to stop, and what came of it."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from probate import BusyResourceError, Outcome
from probate_tasks.status import TaskStatus, status_of
from probate_tasks.work import ThreadWork, describe, is_finished, when_finished

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from probate_tasks.cancellation import Cancellation
    from probate_tasks.stoprequest import StopRequest
    from probate_tasks.work import Work


class Job(ABC):
    """One task or call. `native` is what its users hold; `future` is the one that tells the truth.

    The two are the same, unless a future stands in front of another.
    """

    __slots__ = (
        "__weakref__",
        "_behind",
        "_requests",
        "future",
        "is_asked",
        "is_caller",
        "is_counted",
        "is_kept",
        "is_reported",
        "native",
        "on_over",
    )

    def __init__(self, native: Any, future: Any) -> None:
        self.native = native
        self.future = future
        #: Whether its owner's end has asked it to stop: that it then stops is our doing.
        self.is_asked = False
        #: Whether a cleanup has looked, and may have found it still running.
        self.is_reported = False
        #: Whether a cleanup has found it over, and counts it.
        self.is_counted = False
        #: Whether a release has found it running, and it stays owned.
        self.is_kept = False
        #: Whether it is itself what terminates its owner.
        self.is_caller = False
        #: By everybody who has asked it to stop; dead if they wait no more. Only atomic
        #: operations of the list touch it.
        self._requests: list[weakref.ref[StopRequest]] = []
        #: What it awaited when it was cancelled, and what may go on without it.
        self._behind: tuple[Work, ...] = ()
        #: Called when it may be over: in part, or altogether.
        self.on_over: Callable[[object], object] = _ignore

    # -- what sorts of job may differ in -------------------------------------

    #: Whether others of its owner may use it until they have ended.
    ends_last: ClassVar[bool] = False

    #: Whether it may end without telling anybody.
    is_silent: ClassVar[bool] = False

    def is_over(self) -> bool:
        """Whether nothing of it runs any more, or ever will."""
        over: bool = self.future.done()
        return over and (not self._behind or all(map(is_finished, self._behind)))

    def cancel(self, cancellation: Cancellation) -> bool:
        """Request cancellation, from any thread; whether it could be requested."""
        # The callbacks of a future for threads run here and now, as in any executor.
        return cancellation.cancel(self, self.future)

    def can_end(self) -> bool:
        """Whether there is somebody to run it to its end."""
        return True

    def may_block(self) -> bool:
        """Whether its release may wait for somebody."""
        return True

    @abstractmethod
    def when_over(self, callback: Callable[[object], None]) -> None:
        """Have `callback` called, with whatever ended, when it may be over."""

    @abstractmethod
    def is_running_here(self) -> bool:
        """Whether it is the job itself that asks this."""

    @abstractmethod
    def release_by_force(self, cancellation: Cancellation) -> Outcome:
        """End a job that has not ended when asked. Raises BusyResourceError with its stack."""

    # -- what they have in common --------------------------------------------

    @property
    def status(self) -> TaskStatus:
        """How far it has come."""
        if self._behind and self.future.done() and not self.is_over():
            return TaskStatus.RUNNING
        return status_of(self.future)

    @property
    def is_awaited(self) -> bool:
        """Whether whoever asked it to stop still waits: as long as that termination lasts."""
        return any(reference() is not None for reference in list(self._requests))

    def ask_to_stop(self, cancellation: Cancellation, request: StopRequest | None = None) -> bool:
        """Cancel it, and tell `request` when it is over; False if there is no use waiting."""
        # Waiting for whoever waits would be waiting for ever.
        self.is_caller = self.is_running_here()
        if self.is_caller or self.is_over():
            return False
        self._note_asked(request)
        self.cancel(cancellation)
        if self.is_over():
            # It may have ended before it could know of this request.
            self.notify()
        return self.can_end()

    def note_behind(self, work: Work, is_caller: bool) -> None:
        """Note that this goes on, perhaps, when the job itself is done; or terminates its owner."""
        if is_caller:
            self.is_caller = True
            self.notify()
        if work in self._behind:
            return
        self._behind += (work,)
        if not isinstance(work, ThreadWork):
            when_finished(work, self.on_over)

    def notify(self) -> None:
        """Tell whoever waits that it is over."""
        for reference in list(self._requests):
            if (request := reference()) is not None:
                request.note_over(id(self))

    def note_counted(self) -> None:
        """Note that a cleanup has found it over, and counts it."""
        self.is_counted = True
        self.notify()

    def release(self, cancellation: Cancellation) -> Outcome:
        """Let go of it if it is over. Raises BusyResourceError if it is not."""
        is_ours = self.is_asked
        # Said before looking: whoever ends later sees that it was said, and whoever ended
        # earlier is seen to be over.
        self.is_reported = True
        if not (is_ours or self.is_caller or self.is_over()):
            self.ask_to_stop(cancellation)
            cancellation.finish()
            is_ours = self.is_reported = True
        if self.is_over():
            self.note_counted()
            return Outcome.RELEASED if is_ours else Outcome.ALREADY_GONE
        try:
            return self._end_by_force(cancellation)
        except BusyResourceError:
            # Said before looking, too: it is put back, and may end before it is.
            self.is_kept = True
            if not self.is_over():
                raise
            self.note_counted()
            return Outcome.RELEASED

    def _end_by_force(self, cancellation: Cancellation) -> Outcome:
        if self.is_caller:
            raise BusyResourceError(
                "it terminates its own process, and goes on; it is forgotten when it returns"
            )
        if self._behind and self.future.done():
            raise self.goes_on()
        return self.release_by_force(cancellation)

    def goes_on(self) -> BusyResourceError:
        """What is to be raised of one that has ended itself, while work of its goes on."""
        unfinished = [each for each in self._behind if not is_finished(each)]
        if not unfinished:
            return BusyResourceError("what it awaited has ended just now")
        more = "" if len(unfinished) == 1 else f" (and {len(unfinished) - 1} more)"
        return BusyResourceError(
            f"it was cancelled, but what it awaited goes on{more}: {describe(unfinished[0])}"
        )

    def _note_asked(self, request: StopRequest | None) -> None:
        for reference in list(self._requests):
            if reference() is None:
                with contextlib.suppress(ValueError):
                    self._requests.remove(reference)
        if request is not None:
            self._requests.append(request.reference)
        self.is_reported = False
        self.is_asked = True


def _ignore(_: object) -> None:
    """Nobody wants to be told."""
