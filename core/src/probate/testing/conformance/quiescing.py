"""Checks that `quiesce` asks, and no more."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from typing import TYPE_CHECKING

from probate.errors import describe_error

if TYPE_CHECKING:
    from probate.testing.conformance.trial import Trial


def quiesce_is_gentle(trial: Trial) -> None:
    """`quiesce` returns at once, whoever uses the things, and what it asks for is no force."""
    served = trial.serve()
    pid, other = served.owner(), served.owner("other")
    quiesce = served.hooks["quiesce"]
    owned = [served.make(pid) for _ in range(2)]
    theirs = [served.make(other)]
    with contextlib.ExitStack() as use:
        if (keep_busy := trial.description.keep_busy) is not None:
            use.enter_context(keep_busy(owned[0].thing))
        for time in ("", " a second time"):
            try:
                futures = trial.within(f"quiesce(){time}", lambda: list(quiesce(pid) or ()))
            except AssertionError:
                raise
            except Exception as error:
                raise trial.fail(f"quiesce(){time} raises {describe_error(error)}") from error
            for each in futures:
                if not isinstance(each, concurrent.futures.Future) and not asyncio.isfuture(each):
                    raise trial.fail(f"quiesce() returns {each!r}, which is no future")
            if not trial.description.ends_when_asked:
                gone = [each for each in owned if not each.is_alive]
                if gone or not served.holds(pid):
                    raise trial.fail(
                        f"force in quiesce(): {len(gone)} of {len(owned)} are gone, whose users "
                        "were to be asked to stop; cleanup() releases"
                    )
        trial.check_there(theirs, "when another process was quiesced")
    served.end_without_fault(pid, owned)
    with contextlib.suppress(TimeoutError):
        trial.within("quiesce() of who owns nothing", lambda: list(quiesce(pid) or ()))
