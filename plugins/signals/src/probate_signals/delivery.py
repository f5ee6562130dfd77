"""Calling handlers so that one's failure is not the others'."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType

#: Called with the signal's number, and the frame that the signal interrupted; None for one that
#: was sent to the process and not to the program.
HandlerFunction = Callable[[int, FrameType | None], object]


def call_handler(
    function: HandlerFunction, signum: int, frame: FrameType | None, errors: list[BaseException]
) -> None:
    """Call a handler; what it raises is added to `errors`."""
    try:
        function(signum, frame)
    except BaseException as error:
        errors.append(error)


def raise_collected(errors: list[BaseException]) -> None:
    """Raise what handlers have raised: one as it is, several as an exception group.

    The first that is no Exception, such as a KeyboardInterrupt, comes before all others, which
    are its cause then.
    """
    if not errors:
        return
    first = next((error for error in errors if not isinstance(error, Exception)), errors[0])
    others = [error for error in errors if error is not first]
    # The list is reachable from the errors' own tracebacks: no cycle is left behind.
    errors.clear()
    if not others:
        raise first
    message = "several signal handlers failed"
    if isinstance(first, Exception):
        raise BaseExceptionGroup(message, [first, *others])
    raise first from BaseExceptionGroup(message, others)
