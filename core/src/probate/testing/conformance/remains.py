"""Checks that nothing is left of what has been released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate.testing.conformance.growth import Growth

if TYPE_CHECKING:
    from probate.testing.conformance.trial import Served, Trial

_ROUNDS = 3


def nothing_remains(trial: Trial) -> None:
    """The kernel sees no descriptor, thread or shared map left, and no disposition changed.

    A first round is not looked at: caches, libraries, and threads that stay are made once.
    """
    served = trial.serve()
    _round(served)
    growth = Growth()
    for _ in range(_ROUNDS):
        _round(served)
    if changes := growth.found():
        raise trial.fail(*(f"left when all is released: {change}" for change in changes))


def _round(served: Served) -> None:
    """Have one owner acquire, give back and end, and adopt where that is described."""
    trial = served.trial
    pid = served.owner()
    owned = [served.make(pid) for _ in range(2)]
    if (make_elsewhere := trial.description.make_elsewhere) is not None:
        owned.append(trial.note(make_elsewhere()))
        served.orchestrator.adopt(pid, owned[-1].thing)
    served.give_back(pid, owned[0])
    served.end_without_fault(pid, owned)
    # They would keep what they refer to.
    trial.made.clear()
