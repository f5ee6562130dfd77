"""What a hook may ask of the termination that calls it, and tell it."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_grace: Final[ContextVar[float | None]] = ContextVar("probate_grace", default=None)
_notes: Final[ContextVar[list[str] | None]] = ContextVar("probate_notes", default=None)


def current_grace() -> float | None:
    """Return how many seconds those whom `quiesce` asks get to stop; None outside of a termination.

    For a kind that asks in several steps, or that asks nobody who gets no time.
    """
    return _grace.get()


def add_note(text: str) -> None:
    """Add a sentence to the account of the termination that calls this hook.

    For what is no failure, and should be known all the same: what stays, or what nobody can tell.
    Each is noted once, however often cleanup is tried. Outside of a termination it is dropped.
    """
    notes = _notes.get()
    if notes is not None and text not in notes:
        notes.append(text)


@contextmanager
def calling_hook(notes: list[str], grace: float | None = None) -> Iterator[None]:
    """Have a hook that is called within find the grace, and put its notes into a list."""
    tokens = _notes.set(notes), _grace.set(grace)
    try:
        yield
    finally:
        _notes.reset(tokens[0])
        _grace.reset(tokens[1])
