"""What everything owned of this kind can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import concurrent.futures

    from probate import Outcome

#: Seconds that a release waits for threads that it has woken. They need nobody's goodwill to
#: leave, only to be scheduled.
PATIENCE = 1.0


class Handle(Protocol):
    """A pipe end, connection, queue or semaphore that a process owns."""

    @property
    def identity(self) -> object:
        """The native object, which may have one owner only."""

    @property
    def closed(self) -> bool:
        """Whether it is closed on this side."""

    @property
    def reserved(self) -> int:
        """Bytes that it may take up; they count against the owner's limits."""

    def describe(self) -> str:
        """A short text for accounts."""

    def stop_sending(self) -> concurrent.futures.Future[Any] | None:
        """Take nothing more. Never blocks; returns what is worth waiting for, if anything is."""

    def wake_waiters(self) -> None:
        """Wake all who wait in it, for good, and wait for none of them. Idempotent."""

    def give_back(self) -> Outcome:
        """End it as its owner, or as a user, according to what the process is. Idempotent.

        Raises BusyResourceError while a thread is still inside.
        """
