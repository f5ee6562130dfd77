"""Checks of how a kind releases: in which order, what it does about trouble."""

from __future__ import annotations

import contextlib
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from probate.errors import describe_error
from probate.outcome import Outcome

if TYPE_CHECKING:
    from types import FrameType

    from probate.testing.conformance.trial import Owned, Trial


def newest_is_released_first(trial: Trial) -> None:
    """Within the kind, what was made last may use what was made before it."""
    served = trial.serve()
    pid = served.owner()
    owned = [served.make(pid) for _ in range(3)]
    ended: list[int] = []
    # At each call and return, unless that would take all of the time: a server has far to go.
    left, pause_until = trial.description.patience / 10, 0.0

    def look(_frame: FrameType, _event: str, _argument: Any) -> None:
        nonlocal left, pause_until
        if (begun := time.perf_counter()) < pause_until:
            return
        # The oldest is looked at first: if it has gone, those looked at after it have gone as well,
        # though they go meanwhile, on another thread.
        gone = [
            index for index in range(len(owned)) if index not in ended and not owned[index].is_alive
        ]
        ended.extend(reversed(gone))
        took = time.perf_counter() - begun
        left -= took
        if left < 0:
            pause_until = begun + 10 * took

    def clean() -> None:
        before = sys.getprofile()
        sys.setprofile(look)
        try:
            served.hooks["cleanup"](pid)
        finally:
            sys.setprofile(before)

    trial.within("cleanup()", clean)
    served.end_without_fault(pid, owned)
    if ended != sorted(ended, reverse=True):
        order = ", ".join(f"#{index + 1}" for index in ended)
        raise trial.fail(f"wrong order: of three things they went {order}; newest is to be first")


def one_failure_stops_nobody(trial: Trial) -> None:
    """What cannot be released, since it is gone or in use, keeps no other from being released."""
    served = trial.serve()
    pid = served.owner()
    owned = [served.make(pid) for _ in range(3)]
    middle = owned[1]
    description = trial.description
    with contextlib.ExitStack() as use:
        if description.end is not None:
            description.end(middle.thing)
        elif description.keep_busy is not None:
            use.enter_context(description.keep_busy(middle.thing))
        result = served.end(pid)
        for error in result.errors:
            if error.resource == "cleanup()":
                raise trial.fail(f"cleanup() raises where one of three is gone: {error.message}")
        trial.check_gone([owned[0], owned[2]], "since another could not be released")
    if description.end is not None and served.holds(pid):
        raise trial.fail("what is gone is owned for ever: has_resources() is True after its end")


def busy_stays_owned(trial: Trial) -> None:
    """What is in use is reported BUSY, stays owned, and is released once it is free."""
    keep_busy: Any = trial.description.keep_busy
    served = trial.serve()
    pid = served.owner()
    owned = served.make(pid)
    with keep_busy(owned.thing):
        stats = trial.within("cleanup()", lambda: served.hooks["cleanup"](pid))
        if stats.resources_freed:
            state = "has it still" if owned.is_alive else "has it no more"
            raise trial.fail(
                f"cleanup() says RELEASED of what is in use, and the kernel {state}: BUSY it is"
            )
        busy = {Outcome.BUSY, Outcome.TIMEOUT}
        if not any(error.outcome in busy for error in stats.errors):
            raise trial.fail(f"BUSY is swallowed: of what is in use cleanup() says {stats.errors}")
        if not served.holds(pid):
            raise trial.fail("what is BUSY is owned no more, so that nobody tries again")
        # By hand it is raised, or returned, or left to the end of the owner.
        with contextlib.suppress(Exception):
            trial.within("giving back by hand", partial(served.give_back, pid, owned))
        if not served.holds(pid):
            raise trial.fail("what is BUSY, and is given back by hand, is owned no more")
    result = served.end_without_fault(pid, [owned])
    if result.stats.resources_freed != 1:
        raise trial.fail("what was BUSY is released later, and not counted then")


def a_hang_is_reported(trial: Trial) -> None:
    """A release that hangs is reported at the deadline, and not waited for."""
    stall: Any = trial.description.stall
    served = trial.serve(deadline=0.2)
    pid = served.owner()
    owned: list[Owned] = [served.make(pid)]
    with stall(owned[0].thing):
        try:
            result = served.end(pid)
        except AssertionError as error:
            raise trial.fail(
                "a release that hangs holds the termination up beyond its deadline: does the kind "
                "promise that it never blocks (may_block=False, runs_inline)?"
            ) from error
        if not result.errors:
            raise trial.fail("a release that has not come to its end by the deadline is no error")


def cleanup_raises_nothing(trial: Trial) -> None:
    """What a release raises is in the account; `cleanup` itself raises nothing."""
    served = trial.serve()
    pid = served.owner()
    owned = [served.make(pid) for _ in range(2)]
    try:
        trial.within("cleanup()", lambda: served.hooks["cleanup"](pid))
    except AssertionError:
        raise
    except Exception as error:
        raise trial.fail(f"cleanup() raises {describe_error(error)}") from error
    served.end_without_fault(pid, owned)
