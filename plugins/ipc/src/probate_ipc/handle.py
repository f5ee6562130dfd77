"""What everything owned of this kind can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from probate import Outcome

if TYPE_CHECKING:
    import concurrent.futures

    from probate.system import LetGo, OwnedDescriptor
    from probate_ipc.pipetransport import PipeTransport

#: Seconds that a release waits for threads that it has woken. They need nobody's goodwill to
#: leave, only to be scheduled.
PATIENCE = 1.0


class Handle(ABC):
    """A pipe end, connection, queue or semaphore that a process owns."""

    #: Bytes that it may take up; they count against the owner's limits.
    reserved: int = 0
    #: What came of having those who polled its number let go of it; None if nobody did.
    polling: LetGo | None = None
    #: The transport of an event loop that was made of it, which closes it; None if none is known.
    above: PipeTransport | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.describe()}>"

    @property
    def identity(self) -> object:
        """The native object, which may have one owner only."""
        return self

    @property
    def number(self) -> int:
        """Its descriptor number, which an event loop or a selector may poll; -1 without one."""
        return -1

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """The descriptor numbers that its release closes."""
        return ()

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether it is closed on this side."""

    @abstractmethod
    def describe(self) -> str:
        """Describe it in a few words, for accounts."""

    def stop_sending(self) -> concurrent.futures.Future[None] | None:
        """Take nothing more. Never blocks; returns what is worth waiting for, if anything is."""
        return None

    @abstractmethod
    def wake_waiters(self) -> None:
        """Wake all who wait in it, for good, and wait for none of them. Idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Use it no more on this side. Idempotent.

        Raises BusyResourceError while a thread is still inside.
        """

    def give_back(self) -> Outcome:
        """Release it as its owner's or user's end does. Idempotent.

        Raises BusyResourceError while a thread is still inside, RefusedResourceError if it is
        closed, but may not be removed.
        """
        if self.closed:
            return Outcome.ALREADY_GONE
        self.close()
        return Outcome.RELEASED
