"""Checks of what is acquired while its owner ends, or afterwards: refused, or released."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any

from probate.errors import ProcessTerminatedError
from probate.hookspecs import hookimpl
from probate.testing.conformance.growth import Growth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate.testing.conformance.trial import Owned, Served, Trial

_ROUNDS = 3
_THREADS = 2

#: More than any termination leaves time for, of a kind that is told of none.
_MOST = 40


def the_ended_acquire_nothing(trial: Trial) -> None:
    """Whoever has ended gets nothing any more: refused before it is made."""
    served = trial.serve()
    pid = served.owner()
    served.end_without_fault(pid, [served.make(pid)])
    growth = Growth()
    _check_refused(trial, served, pid, "after its owner's end")
    if changes := growth.found():
        raise trial.fail(f"what is refused to the ended is made all the same: {changes[0]}")


def cleanup_acquires_nothing(trial: Trial) -> None:
    """What is asked for in the midst of a termination is refused."""
    served = trial.serve()
    pid = served.owner()
    owned = [served.make(pid)]
    faults: list[BaseException] = []

    class Observer:
        @hookimpl(wrapper=True)
        def cleanup(self, pid: int) -> Iterator[Any]:
            try:
                _check_refused(trial, served, pid, "while its owner ends")
            except BaseException as error:
                faults.append(error)
            return (yield)

    served.orchestrator.plugin_manager.register(Observer())
    served.end(pid)
    if faults:
        raise faults[0]
    served.end_without_fault(pid, owned)


def nothing_is_lost_in_a_race(trial: Trial) -> None:
    """What several threads acquire while their owner ends is refused, or released with it."""
    served = trial.serve()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(_ROUNDS):
            _race(trial, served)
    finally:
        sys.setswitchinterval(interval)


def _race(trial: Trial, served: Served) -> None:
    pid = served.owner()
    made: list[Owned] = []
    faults: list[BaseException] = []
    start = threading.Barrier(_THREADS + 1)

    def acquire() -> None:
        start.wait()
        for _ in range(_MOST):
            try:
                thing = trial.description.make(served.kind, pid)
            except ProcessTerminatedError:
                return
            except BaseException as error:
                faults.append(error)
                return
            # What cannot be identified has been released by now.
            with contextlib.suppress(Exception):
                made.append(trial.note(thing))

    threads = [threading.Thread(target=acquire, daemon=True) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    start.wait()
    served.end(pid)
    for thread in threads:
        thread.join()
    if faults:
        raise trial.fail(f"whoever acquires while its owner ends gets {faults[0]!r}")
    # What was in the midst of being made when its owner ended is released by who made it.
    trial.check_gone(made, "that was acquired while its owner ended: it is lost")
    if served.holds(pid):
        raise trial.fail("something is owned by who has ended: it was acquired meanwhile")


def _check_refused(trial: Trial, served: Served, pid: int, when: str) -> None:
    try:
        trial.note(trial.description.make(served.kind, pid))
    except ProcessTerminatedError:
        return
    raise trial.fail(
        f"acquired {when}: that is to raise ProcessTerminatedError; is everything made within "
        "table.acquire(), of a table that is an attribute of the plugin?"
    )
