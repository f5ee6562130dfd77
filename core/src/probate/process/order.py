"""How several processes end: in what order, with one grace; and what is being ended around here.

To wait for the latter would be to wait for oneself.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, final

from probate.errors import TerminationDeadlockError
from probate.models import ProcessState
from probate.system.loops import running_loop
from probate.termination.waiting import Wait

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from probate.hookspecs import AnyFuture
    from probate.models import CleanupResult
    from probate.process.process import Pid, Process
    from probate.termination.steps import Termination

_ending: Final[ContextVar[frozenset[Process]]] = ContextVar(
    "probate_ending_here", default=frozenset()
)


def is_terminating_here(process: Process) -> bool:
    """Whether the calls around this context, on whichever thread, are ending `process`."""
    return process in _ending.get()


def check_not_terminating_here(
    process: Process, ender_loops: Mapping[Pid, asyncio.AbstractEventLoop | None]
) -> None:
    """Raise TerminationDeadlockError if it is this very thread, or loop, that is to end it."""
    if process.state is not ProcessState.TERMINATING:
        return
    loop = ender_loops.get(process.pid)
    if is_terminating_here(process) or (loop is not None and loop is running_loop()):
        raise TerminationDeadlockError(process.pid)


@final
class terminating_here:  # noqa: N801  used as a function, and too often for contextlib's
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


def terminations_elsewhere(
    awaited: Iterable[Process],
    ender_loops: Mapping[Pid, asyncio.AbstractEventLoop | None],
    loop: asyncio.AbstractEventLoop | None,
) -> list[AnyFuture]:
    """The ends of processes that somebody else sees to, as far as one can wait for them here.

    `ender_loops` says on which event loop each is ended; `loop` is the one to wait on, if any.
    """
    here = running_loop()
    return [
        process.pending_result.future
        for process in awaited
        if not is_terminating_here(process)
        and (loop is not None or here is None or ender_loops.get(process.pid) is not here)
    ]


def terminate_in_order(
    ending: Sequence[tuple[Process, Termination]],
    others: Callable[[], Sequence[AnyFuture]],
    conclude: Callable[[Process, CleanupResult | BaseException], object],
    grace: float,
    deadline: float,
) -> Generator[Wait, None, BaseException | None]:
    """Settle processes in this order, with one grace for all, and conclude each.

    `others` are the ends that somebody else sees to, asked for after the grace. Returns an
    interrupt, if there was any. `grace` and `deadline` are in seconds.
    """
    for _, termination in ending:
        yield from termination.quiesce()
    futures = [future for _, termination in ending for future in termination.futures]
    if grace and futures:
        yield Wait(futures, min(grace, deadline), is_grace=True)
    # What others are ending is owned by somebody here, and so comes first.
    if others_ends := others():
        yield Wait(others_ends, deadline)
    interrupt: BaseException | None = None
    for process, termination in ending:
        outcome: CleanupResult | BaseException | None = None
        while outcome is None:
            try:
                outcome = yield from termination.release_all()
            except GeneratorExit:
                raise
            except (KeyboardInterrupt, SystemExit) as error:
                # It fell outside of all steps: once more, now that most of it is done.
                interrupt = interrupt or error
            except BaseException as error:
                # Not a plugin's failure, which is in the account, but one of our own: whoever
                # waits for this process is told, and the next one is settled all the same.
                outcome = error
        conclude(process, outcome)
        interrupt = interrupt or termination.interrupt
    return interrupt
