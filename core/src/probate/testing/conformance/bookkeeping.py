"""Checks of what a kind says it owns: truth, accounts, repetition, limits, cost."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final

from probate import KindLimits
from probate.errors import NotOwnedError, ResourceLimitExceeded, describe_error
from probate.testing.conformance.growth import Growth
from probate.testing.conformance.trial import GRACE

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from probate.testing.conformance.trial import Trial

#: How many there are of others before there are many.
_FEW = 2


def has_resources_tells_the_truth(trial: Trial) -> None:
    """`has_resources` is True from the first thing on, until the last was given back by hand."""
    served = trial.serve()
    # Not the first pid, which a kind might take for everybody's.
    other, pid = served.owner("other"), served.owner()
    if served.holds(pid):
        raise trial.fail("has_resources() is True before anything was made")
    owned = [served.make(pid)]
    if served.holds(other):
        raise trial.fail("owned by the wrong process: what one has made, another has as well")
    if not served.holds(pid):
        raise trial.fail("has_resources() is False although one was made: it has no owner")
    owned.append(served.make(pid))
    if (count := served.count(pid)) != len(owned):
        raise trial.fail(f"usage() counts {count}, and {len(owned)} were made")
    for left in (1, 0):
        each = owned[left]
        try:
            served.give_back(pid, each)
        except NotOwnedError as error:
            raise trial.fail(f"what was made cannot be given back by hand: {error}") from error
        trial.check_gone([each], "although it was given back by hand")
        if served.holds(pid) is not bool(left):
            raise trial.fail(
                f"has_resources() is {not left} with {left} left, the others given back by hand: "
                "is it a second counter?"
            )
        if (count := served.count(pid)) != left:
            raise trial.fail(f"usage() counts {count} with {left} left: is it a second counter?")


def accounts_tell_what_was_done(trial: Trial) -> None:
    """The account of an end counts each thing, and its bytes, once; the kernel has none of them."""
    served = trial.serve()
    pid = served.owner()
    owned = [served.make(pid) for _ in range(3)]
    usage = served.orchestrator.usage(pid).get(trial.name)
    nbytes = 0 if usage is None else usage.nbytes
    stats = served.end_without_fault(pid, owned).stats
    by_type = dict(stats.by_type)
    if (stats.resources_freed, by_type) != (len(owned), {trial.name: len(owned)}):
        raise trial.fail(
            f"wrong count: {len(owned)} were owned and released, and the account says "
            f"{stats.resources_freed}, by kind {by_type}"
        )
    if stats.bytes_freed != nbytes:
        raise trial.fail(
            f"wrong count of bytes: usage() said {nbytes}, and the account {stats.bytes_freed}"
        )


def event_loops_end_owners(trial: Trial) -> None:
    """An owner can be ended by a task, whose event loop runs where hooks that never block run."""
    served = trial.serve()
    pid = served.owner()
    owned = [served.make(pid) for _ in range(2)]
    end = partial(served.manager.terminate_process_async, pid)
    result = trial.within("the termination", lambda: asyncio.run(end()), GRACE + served.deadline)
    for error in result.errors:
        raise trial.fail(f"its account has an error when an event loop ends its owner: {error}")
    trial.check_gone(owned, "although an event loop has ended its owner, and all was well")


def cleanup_can_be_repeated(trial: Trial) -> None:
    """A second `cleanup`, and one of who never owned anything, frees nothing and is no error."""
    served = trial.serve()
    pid, other = served.owner(), served.owner("other")
    owned = [served.make(pid) for _ in range(2)]
    served.end_without_fault(pid, owned)
    for each, who in ((pid, "a second time"), (other, "for who owns nothing")):
        try:
            stats = trial.within("cleanup()", partial(served.hooks["cleanup"], each))
        except Exception as error:
            raise trial.fail(f"cleanup() {who} raises {describe_error(error)}") from error
        if stats.resources_freed or stats.errors_encountered or stats.errors:
            raise trial.fail(
                f"cleanup() {who} says {stats.resources_freed} freed and "
                f"{stats.errors_encountered} errors: it is not idempotent"
            )


def limits_hold(trial: Trial) -> None:
    """What is over a limit, of things or of bytes, is refused before it is made."""
    served = trial.serve()
    pid = served.owner()
    served.make(pid)
    usage = served.orchestrator.usage(pid).get(trial.name)
    served.end(pid)
    _check_limit(trial, "things", KindLimits(max_count=1))
    if usage is not None and usage.nbytes:
        _check_limit(trial, "bytes", KindLimits(max_bytes=usage.nbytes))


def _check_limit(trial: Trial, what: str, limits: KindLimits) -> None:
    """Fail unless a second thing is refused to each of two owners."""
    served = trial.serve(limits=limits)
    for pid in (served.owner(), served.owner("second")):
        owned = served.make(pid)
        growth = Growth()
        try:
            trial.note(trial.description.make(served.kind, pid))
        except ResourceLimitExceeded:
            if changes := growth.found():
                raise trial.fail(
                    f"what is over the limit is made before it is refused, and leaves: {changes[0]}"
                ) from None
        else:
            raise trial.fail(
                f"limits do not hold: a second one was made over the limit of {what}; is "
                "everything made within table.acquire(), with its nbytes?"
            )
        served.end_without_fault(pid, [owned])


def others_cost_nothing(trial: Trial) -> None:
    """What `has_resources` and `cleanup` do for one owner is the same however much others own."""
    served = trial.serve()
    many = trial.description.many
    figures = []
    for others in (_FEW, many):
        # In the midst of the others, so that no search finds it soon, from whichever end.
        pids = [served.owner() for _ in range(others + 1)]
        for pid in pids:
            served.make(pid)
        asked = _CountingPid(pids[others // 2])
        steps = _steps_of(partial(served.hooks["has_resources"], asked))
        asked.compared.clear()
        trial.within("cleanup()", partial(served.hooks["cleanup"], asked))
        figures.append((steps, len(asked.compared)))
    (few_steps, few_compared), (many_steps, many_compared) = figures
    if many_steps - few_steps >= many // 2:
        raise trial.fail(
            f"has_resources() takes {few_steps} steps while {_FEW} others own something, and "
            f"{many_steps} while {many + _FEW} do: it must be O(1), from a table by pid"
        )
    if many_compared - few_compared >= many // 2:
        raise trial.fail(
            f"cleanup() looks at what others own: {few_compared} comparisons of pids while {_FEW} "
            f"others own something, and {many_compared} while {many + _FEW} do"
        )


@final
class _CountingPid(int):
    """A pid that notes how often it is compared: also where no Python code does it."""

    compared: ClassVar[list[None]] = []

    def __eq__(self, other: object) -> bool:
        self.compared.append(None)
        return int(self) == other

    def __hash__(self) -> int:
        return hash(int(self))


def _steps_of(function: Callable[[], object]) -> int:
    """Count the interpreter's steps within a call, and the comparisons of counting pids."""
    steps = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal steps
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    # From Python 3.12 on, code is traced by steps only once that has been asked for before.
    for _ in range(2):
        steps = 0
        _CountingPid.compared.clear()
        sys.settrace(trace)
        try:
            function()
        finally:
            sys.settrace(before)
    return steps + len(_CountingPid.compared)
