"""Checks that the end of one owner, or of one manager, is nothing to any other."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from probate.errors import NotOwnedError

if TYPE_CHECKING:
    from probate.testing.conformance.trial import Trial


def owners_are_apart(trial: Trial) -> None:
    """Others' things are there, and work, when one owner has ended."""
    served = trial.serve()
    pid, other = served.owner(), served.owner("other")
    theirs = [served.make(other)]
    own = [served.make(pid) for _ in range(2)]
    theirs.append(served.make(other))
    elsewhere = []
    if (make_elsewhere := trial.description.make_elsewhere) is not None:
        elsewhere.append(trial.note(make_elsewhere()))
    with contextlib.ExitStack() as uses:
        shared = []
        if (share := trial.description.share) is not None:
            shared = [uses.enter_context(share(each.thing)) for each in own]
        served.end(pid)
        trial.check_there(theirs, "when another process ended")
        trial.check_there(elsewhere, "when a process ended that did not own it")
        for use in shared:
            try:
                use()
            except Exception as error:
                raise trial.fail(
                    "what others share with the owner cannot be used any more when that ends "
                    f"({error!r}): was it shut down, not closed?"
                ) from error
    if not served.holds(other) or served.count(other) != len(theirs):
        raise trial.fail(
            f"of the {len(theirs)} things of a process {served.count(other)} were left when "
            "another ended"
        )
    served.end_without_fault(other, theirs)


def managers_are_apart(trial: Trial) -> None:
    """Two orchestrators, whose managers issue the same pids, know nothing of each other."""
    first, second = trial.serve(), trial.serve()
    pid = first.owner()
    if second.owner() != pid:
        raise trial.fail("the kit expects that two managers issue the same pids")
    own, theirs = [first.make(pid)], [second.make(pid)]
    for served in (first, second):
        if (count := served.count(pid)) != 1:
            raise trial.fail(
                f"one table for all managers: one thing was made in each of two, and {count} is "
                "what each has"
            )
    first.end_without_fault(pid, own)
    trial.check_there(theirs, "when the process of that pid in another manager ended")
    if not second.holds(pid):
        raise trial.fail("one table for all managers: the end of one empties that of the other")
    second.end_without_fault(pid, theirs)


def what_is_transferred_lives_on(trial: Trial) -> None:
    """A thing that got another owner is released with that one, and not before."""
    served = trial.serve()
    pid, heir = served.owner(), served.owner("heir")
    owned = served.make(pid)
    try:
        served.orchestrator.transfer(pid, owned.thing, heir)
    except NotOwnedError as error:
        raise trial.fail(f"what was made is not found by itself: {error}") from error
    if served.holds(pid) or not served.holds(heir):
        raise trial.fail("has_resources() knows nothing of a transfer: is it a second counter?")
    served.end(pid)
    trial.check_there([owned], "when its former owner ended")
    served.end_without_fault(heir, [owned])


def forked_children_own_nothing(trial: Trial) -> None:
    """A child that this process forks owns nothing, and its cleanup releases nothing of ours."""
    from probate.settlement.apart import call_apart

    served = trial.serve()
    pid = served.owner()
    owned = served.make(pid)

    def look() -> list[object]:
        holds = served.hooks["has_resources"](pid)
        stats = served.hooks["cleanup"](pid)
        return [bool(holds), stats.resources_freed]

    try:
        holds, freed = call_apart(look, trial.description.patience)
    except ChildProcessError as error:
        raise trial.fail(f"in a forked child its hooks fail: {error}") from error
    if holds or freed:
        raise trial.fail(
            f"a forked child owns what its parent does: has_resources() is {holds}, and cleanup() "
            f"says {freed} freed; probate.forget_in_forked_child tells of forks"
        )
    trial.check_there([owned], "when a forked child cleaned up")
    served.end_without_fault(pid, [owned])
