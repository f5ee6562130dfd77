"""What the table keeps of a task or call: whether it was asked to stop, and what came of it."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from probate import BusyResourceError, Outcome
from probate_tasks.status import status_of

if TYPE_CHECKING:
    import weakref

    from probate_tasks.ending import Ending, LoopContext
    from probate_tasks.status import Native, TaskStatus


class Job(ABC):
    """One task or call. `native` is what its users hold; `future` is the one that tells the truth.

    The two are the same, unless a future stands in front of another.
    """

    __slots__ = (
        "__weakref__",
        "_endings",
        "future",
        "is_asked",
        "is_caller",
        "is_reported",
        "is_settled",
        "is_told",
        "native",
    )

    def __init__(self, native: Native, future: Any) -> None:
        self.native = native
        self.future = future
        #: Whether its owner's end has asked it to stop: that it then stops is our doing.
        self.is_asked = False
        #: Whether a cleanup has found it still running.
        self.is_reported = False
        #: Whether a cleanup has found it over.
        self.is_settled = False
        #: Whether it is itself what terminates its owner.
        self.is_caller = False
        #: Whether all who waited for it have been told that it is over.
        self.is_told = False
        #: Of everybody who has asked it to stop; dead if they care no more. Only atomic
        #: operations of the list touch it.
        self._endings: list[weakref.ref[Ending]] = []

    # -- what sorts of job may differ in -------------------------------------

    def is_over(self) -> bool:
        """Whether nothing of it runs any more, or ever will."""
        over: bool = self.future.done()
        return over

    def cancel(self) -> bool:
        """Request cancellation, from any thread; whether it could be requested."""
        # The future's callbacks run here and now, as in any executor.
        requested: bool = self.future.cancel()
        return requested

    def can_end(self) -> bool:
        """Whether there is somebody to run it to its end."""
        return True

    def may_wait(self) -> bool:
        """Whether its release may wait for somebody."""
        return True

    def settle(self) -> None:
        """Note that a cleanup has found it over."""
        self.is_settled = True
        if not self.is_told:
            self.notify()

    @abstractmethod
    def is_running_here(self) -> bool:
        """Whether it is the job itself that asks this."""

    @abstractmethod
    def release_by_force(self) -> Outcome:
        """End a job that has not ended when asked. Raises BusyResourceError with its stack."""

    # -- what they have in common --------------------------------------------

    @property
    def status(self) -> TaskStatus:
        """How far it has come."""
        return status_of(self.future)

    @property
    def is_awaited(self) -> bool:
        """Whether whoever asked it to stop still cares: as long as that termination lasts."""
        return any(reference() is not None for reference in list(self._endings))

    def ask_to_stop(self, ending: Ending | None = None, here: LoopContext | None = None) -> bool:
        """Cancel it, and tell `ending` when it is over; False if there is no use waiting.

        `here` is where this is called, if the caller knows.
        """
        del here
        if self.is_over():
            return False
        # Waiting for whoever waits would be waiting for ever.
        self.is_caller = self.is_running_here()
        if self.is_caller:
            return False
        self._note_asked(ending)
        self.cancel()
        if self.is_over():
            # It may have ended before it could know of this `ending`.
            self.notify()
        if self.can_end():
            return True
        if ending is not None:
            self._endings.remove(ending.reference)
        return False

    def notify(self) -> None:
        """Tell whoever waits that it is over."""
        for reference in list(self._endings):
            if (ending := reference()) is not None:
                ending.note(self)
        self.is_told = True

    def release(self) -> Outcome:
        """Let go of it if it is over. Raises BusyResourceError if it is not."""
        was_asked = self.is_asked
        # Said before looking: whoever ends later sees that it was said, and whoever ended
        # earlier is seen to be over.
        self.is_reported = True
        if self.is_over():
            self.settle()
            return Outcome.RELEASED if was_asked else Outcome.ALREADY_GONE
        if not was_asked and not self.is_caller:
            self.ask_to_stop()
            self.is_reported = True
            if self.is_over():
                self.settle()
                return Outcome.RELEASED
        if self.is_caller:
            raise BusyResourceError(
                "it terminates its own process, and goes on; it is forgotten when it returns"
            )
        return self.release_by_force()

    def _note_asked(self, ending: Ending | None) -> None:
        """Note that it is asked to stop, and by whom."""
        endings = self._endings
        if endings:
            for reference in list(endings):
                if reference() is None:
                    with contextlib.suppress(ValueError):
                        endings.remove(reference)
        if ending is not None:
            endings.append(ending.reference)
        self.is_reported = False
        self.is_asked = True
