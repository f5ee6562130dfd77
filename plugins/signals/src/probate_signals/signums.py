"""Signal numbers and handlers, checked before anything is acquired."""

from __future__ import annotations

import functools
import inspect
import signal
from collections.abc import Iterable
from typing import Final

from probate.system import checked_int

#: Neither caught, nor blocked, nor ignored (signal(7)).
_UNCATCHABLE: Final = frozenset({signal.SIGKILL, signal.SIGSTOP})


def checked_signum(signum: object) -> int:
    """Return a signal number that can be caught.

    Raises TypeError for what is no int, ValueError for a number that is no signal (among them
    those that the C library keeps for itself, nptl(7)), and for SIGKILL and SIGSTOP.
    """
    number = checked_int("a signal's number, such as signal.SIGTERM,", signum)
    valid = _valid_signals()
    if number not in valid:
        raise ValueError(
            f"{number} is no signal number here; signal.valid_signals() are "
            f"{min(valid):d} to {max(valid):d}, less those that the C library keeps for itself"
        )
    if number in _UNCATCHABLE:
        raise ValueError(
            f"{name_of(number)} can be neither caught nor blocked; to end a process of ours, "
            "terminate it"
        )
    return number


def checked_signums(signums: object) -> list[int]:
    """Return each number once, in the order given. Raises as `checked_signum`."""
    if not isinstance(signums, Iterable):
        raise TypeError(f"expected signal numbers, as {{signal.SIGTERM}}; got {signums!r}")
    return list(dict.fromkeys([checked_signum(signum) for signum in signums]))


def check_handler(handler: object) -> None:
    """Raise TypeError for what cannot be called as `handler(signum, frame)`."""
    if not callable(handler):
        raise TypeError(
            f"a handler is called as handler(signum, frame), and {handler!r} cannot be called; "
            "to ignore a signal, register a function that does nothing"
        )
    call = getattr(handler, "__call__", None)  # noqa: B004  its kind is looked at, not its presence
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call):
        raise TypeError(
            f"a handler cannot be a coroutine function, got {handler!r}; register a function "
            "that hands it to its loop: loop.call_soon_threadsafe(asyncio.ensure_future, ...)"
        )


def name_of(signum: int) -> str:
    """The name of a signal, such as SIGTERM; real-time signals but two have none (signal(7))."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


@functools.cache
def _valid_signals() -> frozenset[int]:
    """As `signal.valid_signals`, which takes its time."""
    return frozenset(signal.valid_signals())
