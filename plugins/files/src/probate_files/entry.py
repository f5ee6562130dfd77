"""What every owned thing can do, whatever it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import concurrent.futures

    from probate import Outcome

#: Seconds that a release by itself waits for a flush that somebody's reader has to let through.
PATIENCE = 0.1


class Entry(Protocol):
    """One owned thing, as the table has it. Its repr is its description."""

    @property
    def native(self) -> object:
        """What the user has of it, by which it is found."""

    @property
    def is_in_memory(self) -> bool:
        """Whether neither its flush nor its release can wait for a disk, or for anybody."""

    def quiesce(self) -> concurrent.futures.Future[None] | None:
        """Start flushing; a future if that goes on by itself."""

    def release(self, patience: float = PATIENCE) -> Outcome:
        """Give it back; waits for others for at most `patience` seconds."""
