"""Terminates processes with all that they own, each once, whatever falls in meanwhile."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, final

from probate.models import NOTHING, CleanupResult, ProcessState, nothing_of
from probate.plugins.registry import NO_KINDS
from probate.process.grace import Grace
from probate.process.history import TerminationHistory, log_exit, log_failures
from probate.process.hostexit import open_managers
from probate.process.order import (
    mark_terminating,
    terminate_in_order,
    terminating_here,
    termination_order,
    terminations_elsewhere,
)
from probate.process.pending import PendingResult, Run
from probate.system.arguments import checked_seconds
from probate.system.interrupts import Elsewhere
from probate.termination.steps import Termination
from probate.termination.waiting import Wait, run, run_async, run_elsewhere

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from probate.models import CleanupStats
    from probate.plugins.registry import KindsInUse, PluginRegistry
    from probate.process.process import Process


@final
class Terminator:
    """Takes the processes of one manager from RUNNING to TERMINATED, and remembers them.

    `grace` and `deadline` are in seconds. The manager reads and changes what is public here, under
    the lock.
    """

    def __init__(self, registry: PluginRegistry, grace: float, deadline: float | None) -> None:
        self._registry = registry
        self._admission = registry.admission
        self._grace = grace
        #: Ends the grace of all that is being terminated.
        self.grace = Grace()
        self._deadline = deadline
        self.lock = threading.RLock()
        #: Those that have not terminated yet, by pid, oldest first.
        self.processes: dict[int, Process] = {}
        #: Those of them that have a key, by it.
        self.by_key: dict[str, Process] = {}
        self.history = TerminationHistory()

    def forget_parent(self) -> None:
        """Have no processes, in a forked child: those of the parent are the parent's."""
        for process in self.processes.values():
            open_managers.let_go(process)
            process._state = ProcessState.TERMINATED
            process._result = PendingResult()
            process._result.resolve(nothing_of(process.pid))
        self.lock = threading.RLock()
        self.processes.clear()
        self.by_key.clear()
        self.history.clear()

    def terminate(
        self,
        roots: Sequence[Process],
        grace: float | None = None,
        leaker: Process | None = None,
        *,
        waits_for_others: bool = False,
    ) -> None:
        """Terminate processes on this thread, as far as nobody else does."""
        grace = self._grace if grace is None else checked_seconds("grace", grace)
        ending: list[Process] = []
        current = Run()
        try:
            awaited = self._begin(roots, None, ending, current)
            if ending or waits_for_others:
                # In a context of its own, where what is set is gone whatever falls in, and when.
                copy_context().run(self._run_steps, ending, awaited, grace, leaker)
        except BaseException:
            # Before any call: should another exception fall in here, the next to ask takes over.
            current.is_lost = True
            Elsewhere(partial(self._complete, ending, current)).result()
            raise

    def _run_steps(
        self, ending: list[Process], awaited: list[Process], grace: float, leaker: Process | None
    ) -> None:
        with terminating_here(ending):
            if (steps := self._steps(ending, awaited, grace, leaker)) is not None:
                (ended := run(steps)).unwrap(ended.value)

    async def terminate_async(
        self,
        roots: Sequence[Process],
        grace: float | None = None,
        leaker: Process | None = None,
        *,
        waits_for_others: bool = False,
    ) -> None:
        """Terminate processes on this event loop, as far as nobody else does."""
        grace = self._grace if grace is None else checked_seconds("grace", grace)
        loop = asyncio.get_running_loop()
        ending: list[Process] = []
        current = Run()
        try:
            awaited = self._begin(roots, loop, ending, current)
            if ending or waits_for_others:
                with terminating_here(ending):
                    if (steps := self._steps(ending, awaited, grace, leaker, loop)) is not None:
                        (ended := await run_async(steps)).unwrap(ended.value)
        except BaseException as error:
            current.is_lost = True
            await run_elsewhere(partial(self._complete, ending, current), error)
            raise

    def _complete(self, ending: Sequence[Process], lost: Run) -> None:
        """Terminate those that an exception from outside has left TERMINATING."""
        with self.lock:
            left = [process for process in ending if process._result.run in (lost, None)]
            left = [process for process in left if process._result.outcome is None]
            mark_terminating(left, Run(), None, self._admission)
        try:
            with terminating_here(left):
                if (steps := self._steps(left, [], 0)) is not None:
                    run(steps)
        except BaseException as error:
            # One of our own. Whoever waits is told, rather than waiting for ever.
            for process in left:
                if process._result.outcome is None:
                    self._conclude(process, error)

    def _begin(
        self,
        roots: Sequence[Process],
        loop: asyncio.AbstractEventLoop | None,
        ending: list[Process],
        current: Run,
    ) -> list[Process]:
        """Take the processes and all they own to TERMINATING, and into `ending`, atomically.

        Returns those that somebody else terminates.
        """
        with self.lock:
            running, awaited = termination_order(roots)
            # First: nothing has changed yet, and from here on it is known what is to end.
            ending += running
            mark_terminating(running, current, loop, self._admission)
        return awaited

    def _steps(
        self,
        ending: list[Process],
        awaited: list[Process],
        grace: float,
        leaker: Process | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Generator[Wait, None, BaseException | None] | None:
        """Return the steps that terminate `ending`; they return an interrupt, if any.

        None if there is one process only, which owned nothing and is concluded already.
        """
        in_use: KindsInUse | None = None
        if len(ending) == 1 and not awaited:
            in_use = self._registry.kinds_in_use(ending[0].pid)
            if in_use is NO_KINDS:
                self._conclude(ending[0], nothing_of(ending[0].pid))
                return None
        pairs = [(each, self._termination_of(each, each is leaker, in_use)) for each in ending]
        others = partial(terminations_elsewhere, awaited, loop)
        deadline = float("inf") if self._deadline is None else self._deadline
        return terminate_in_order(pairs, others, self._conclude, self.grace, grace, deadline)

    def _termination_of(
        self, process: Process, with_leaks: bool, in_use: KindsInUse | None
    ) -> Termination:
        """Return the one termination of a process, which keeps its account if taken up anew."""
        result = process._result
        if result.termination is None:
            result.termination = Termination(
                process.pid, self._registry, self._deadline, with_leaks, in_use
            )
        return result.termination

    def _conclude(self, process: Process, outcome: CleanupResult | BaseException) -> None:
        """Take a process from TERMINATING to TERMINATED, and hand its account out."""
        pid = process.pid
        result = outcome if isinstance(outcome, CleanupResult) else None
        with self.lock:
            process._state = ProcessState.TERMINATED
            process._children.clear()
            if result is not None and process._below is not NOTHING:
                outcome = result = result.model_copy(update={"children": process._below})
            if process.parent is not None:
                process.parent._children.pop(pid, None)
                if result is not None and process.parent.state is ProcessState.TERMINATING:
                    _add_to(process.parent, result.total)
            # In this order, so that `get`, without the lock, finds it in one of the two.
            self.history.keep(process)
            self.processes.pop(pid, None)
            open_managers.let_go(process)
            if process.key is not None:
                self.by_key.pop(process.key, None)
            if result is not None:
                self.history.add(result.stats)
        if result is not None:
            if not result.errors and (journal := self._admission.journal) is not None:
                journal.end(pid)
            if process._child is not None:
                log_exit(process, result)
            if result.errors or result.leaks or result.notes:
                log_failures(process, result)
        process._result.resolve(outcome)


def _add_to(owner: Process, total: CleanupStats) -> None:
    if total is not NOTHING:
        owner._below = total if owner._below is NOTHING else owner._below + total
