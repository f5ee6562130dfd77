"""In what order processes end; and what is being ended around here.

To wait for the latter would be to wait for oneself.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, final

from probate.models import ProcessState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from probate.process.process import Process

_ending: Final[ContextVar[frozenset[Process]]] = ContextVar(
    "probate_ending_here", default=frozenset()
)


def is_ending_here(process: Process) -> bool:
    """Whether the calls around this context, on whichever thread, are ending `process`."""
    return process in _ending.get()


@final
class ending_here:  # noqa: N801  used as a function, and too often for contextlib's
    """A context manager: whatever is called within it knows what is being ended."""

    __slots__ = ("_processes", "_token")

    def __init__(self, processes: Iterable[Process]) -> None:
        self._processes = processes

    def __enter__(self) -> None:
        self._token = _ending.set(_ending.get().union(self._processes))

    def __exit__(self, *_: object) -> None:
        _ending.reset(self._token)


def in_order(roots: Sequence[Process]) -> tuple[list[Process], list[Process]]:
    """Those of `roots`, and of all that they own, that are RUNNING; and those that are TERMINATING.

    The former each after all that it owns, and these newest first.
    """
    if len(roots) == 1 and not roots[0].owns_processes:
        state = roots[0].state
        if state is ProcessState.RUNNING:
            return [roots[0]], []
        return [], [roots[0]] if state is ProcessState.TERMINATING else []
    running: list[Process] = []
    terminating: list[Process] = []
    # Without recursion, since the tree may be deep: owners before what they own, older
    # before newer, and then all of it the other way round.
    to_visit = list(roots)
    while to_visit:
        process = to_visit.pop()
        if process.state is ProcessState.RUNNING:
            running.append(process)
            if process.owns_processes:
                to_visit.extend(reversed(process.children()))
        elif process.state is ProcessState.TERMINATING:
            terminating.append(process)
    running.reverse()
    return running, terminating
