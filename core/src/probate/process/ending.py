"""What is being ended around here: to wait for that would be to wait for oneself."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from probate.process.process import Process

_ending: Final[ContextVar[frozenset[Process]]] = ContextVar(
    "probate_ending_here", default=frozenset()
)


def is_ending_here(process: Process) -> bool:
    """Whether the calls around this context, on whichever thread, are ending `process`."""
    return process in _ending.get()


@contextmanager
def ending_here(processes: Iterable[Process]) -> Iterator[None]:
    """Let whatever is called from here know what is being ended."""
    token = _ending.set(_ending.get() | frozenset(processes))
    try:
        yield
    finally:
        _ending.reset(token)
