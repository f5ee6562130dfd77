"""How several processes are terminated: in what order, and with one grace for all.

It is also known here which processes the calls around a context are terminating, since a hook
that waits for one of those would wait for itself.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, final

from probate.errors import TerminationDeadlockError
from probate.models import ProcessState
from probate.system.interrupts import fell_in
from probate.system.loops import running_loop
from probate.termination.waiting import Wait

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator, Iterable, Sequence

    from probate.hookspecs import AnyFuture
    from probate.models import CleanupResult
    from probate.ownership.admission import Admission
    from probate.process.grace import Grace
    from probate.process.pending import Run
    from probate.process.process import Process
    from probate.termination.steps import Termination

_terminating: Final[ContextVar[frozenset[Process]]] = ContextVar(
    "probate_terminating_here", default=frozenset()
)


def check_not_terminating_here(process: Process, *, blocks: bool = True) -> None:
    """Raise TerminationDeadlockError if it is the caller who is terminating `process`.

    That is: the calls around this context, on whichever thread; or, if the wait `blocks`, the loop
    that runs here.
    """
    if process.state is ProcessState.TERMINATING:
        loop = process.pending_result.loop if blocks else None
        if process in _terminating.get() or (loop is not None and loop is running_loop()):
            raise TerminationDeadlockError(process.pid)


@final
class terminating_here:  # noqa: N801  used as a function, and too often for contextlib's
    """Names the processes that are terminated by what a `with` block calls."""

    __slots__ = ("_processes", "_token")

    def __init__(self, processes: Iterable[Process]) -> None:
        self._processes = processes

    def __enter__(self) -> None:
        self._token = _terminating.set(_terminating.get().union(self._processes))

    def __exit__(self, *_: object) -> None:
        # Thrown away half way, by a loop that was never closed, it ends in another context, where
        # there is nothing to reset (PEP 567).
        try:  # noqa: SIM105  `suppress` takes ten times as long
            _terminating.reset(self._token)
        except ValueError:
            pass


def termination_order(roots: Sequence[Process]) -> tuple[list[Process], list[Process]]:
    """Sort `roots`, and all that they own, into those that are RUNNING and those TERMINATING.

    Of the former each comes after all that it owns, and of these the newest comes first.
    """
    running: list[Process] = []
    terminating: list[Process] = []
    # Without recursion, since the tree may be deep: owners before what they own, older
    # before newer, and then all of it the other way round.
    to_visit = list(roots)
    while to_visit:
        process = to_visit.pop()
        is_terminating = process.state is ProcessState.TERMINATING
        if process.state is ProcessState.RUNNING or (
            is_terminating and process.pending_result.is_lost
        ):
            running.append(process)
            if children := process.children():
                to_visit.extend(reversed(children))
        elif is_terminating:
            terminating.append(process)
    running.reverse()
    return running, terminating


def mark_terminating(
    processes: Iterable[Process],
    run: Run,
    loop: asyncio.AbstractEventLoop | None,
    admission: Admission,
) -> None:
    """Take processes to TERMINATING, on the manager's lock; they can acquire nothing more."""
    for process in processes:
        process.begin_termination(run, loop)
        admission.revoke(process.pid)


def terminations_elsewhere(
    awaited: Iterable[Process], loop: asyncio.AbstractEventLoop | None
) -> list[AnyFuture]:
    """Return futures of what somebody else terminates, as far as one can wait for it here.

    `loop` is the one to wait on; without one, this thread waits, and with it the loop that runs
    here, if any: what is terminated on that loop would never end.
    """
    blocked = running_loop() if loop is None else None
    terminating = _terminating.get()
    return [
        process.pending_result.future
        for process in awaited
        if process not in terminating
        and (blocked is None or process.pending_result.loop is not blocked)
    ]


def terminate_in_order(
    pairs: Sequence[tuple[Process, Termination]],
    others: Callable[[], Sequence[AnyFuture]],
    conclude: Callable[[Process, CleanupResult | BaseException], object],
    grace: Grace,
    seconds: float,
    deadline: float,
) -> Generator[Wait, None, BaseException | None]:
    """Terminate these processes in this order, with one grace for all, and conclude each.

    `others` is called after the grace, and returns futures of the processes below them that
    somebody else terminates. The grace lasts so many `seconds`, `deadline` is in seconds as well.
    Returns an interrupt, if there was any.
    """
    seconds = 0 if grace.is_over else min(seconds, deadline)
    for _, termination in pairs:
        yield from termination.quiesce(seconds)
    futures = [future for _, termination in pairs for future in termination.futures]
    if seconds and futures:
        yield grace.wait(futures, seconds)
    # What others terminate is owned by somebody here, and so comes first.
    if others_futures := others():
        yield Wait(others_futures, deadline)
    interrupt: BaseException | None = None
    for process, termination in pairs:
        outcome: CleanupResult | BaseException | None = None
        while outcome is None:
            try:
                outcome = yield from termination.release_all()
            except GeneratorExit:
                raise
            except BaseException as error:
                if fell_in(error):
                    # Outside of all steps: once more, now that most of it is done.
                    interrupt = interrupt or error
                    continue
                if isinstance(error, (RecursionError, MemoryError)):
                    # Short of stack or memory here: whoever runs this goes on elsewhere.
                    raise
                # Not a plugin's failure, which is in the account, but one of our own: those who
                # wait for this process are told, and the next one is terminated all the same.
                outcome = error
        conclude(process, outcome)
        interrupt = interrupt or termination.interrupt
    return interrupt
