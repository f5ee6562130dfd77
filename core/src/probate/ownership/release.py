"""Calling the release function of a table, on the event loop that it needs."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, final

from probate.errors import ReleaseError
from probate.outcome import Outcome, checked_outcome
from probate.system.interrupts import fell_in
from probate.system.loops import run_on_loop, running_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


def is_async(function: object) -> bool:
    """Tell whether a function, or an object that is called like one, returns a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004  what it is, and not whether
    )


@final
class Releaser:
    """Releases a table's resources; with a coroutine function, each on the loop it belongs to."""

    __slots__ = ("_loops", "function", "is_async")

    def __init__(self, function: Callable[[Any], object] | None) -> None:
        #: The table's own; None if each call has to bring one.
        self.function = function
        #: Whether it is a coroutine function, and needs an event loop.
        self.is_async = is_async(function)
        # The loop that ran where a resource was added, by the resource's address.
        self._loops: dict[int, asyncio.AbstractEventLoop | None] = {}

    def note_here(self, resource: object) -> None:
        """Remember the loop that runs here, for a resource that is added."""
        if self.is_async:
            self._loops[id(resource)] = running_loop()

    def note(self, resource: object, loop: asyncio.AbstractEventLoop | None) -> None:
        """Remember a loop, or that there was none, for a resource that may stay owned."""
        if self.is_async:
            self._loops[id(resource)] = loop

    def loop_of(self, resource: object) -> asyncio.AbstractEventLoop | None:
        """Return the loop that was noted for a resource."""
        return self._loops.get(id(resource))

    def forget(self, resource: object) -> None:
        """Forget what was noted for a resource that nobody owns any more."""
        self._loops.pop(id(resource), None)

    def choose(self, function: Callable[[Any], object] | None) -> Callable[[Any], object]:
        """Return what to call with a resource, from any thread: `function`, else the table's.

        Raises TypeError if there is neither.
        """
        chosen = self.function if function is None else function
        if chosen is None:
            raise TypeError("this table was made without a release function, so the call needs one")
        if self.is_async if function is None else is_async(function):
            return partial(self._run, chosen)
        return chosen

    def _run(self, function: Callable[[Any], Any], resource: object) -> Outcome:
        loop = self._loops.get(id(resource), running_loop())
        outcome = Outcome.FAILED
        try:
            outcome = checked_outcome(run_on_loop(partial(function, resource), loop))
        except ReleaseError as error:
            outcome = error.outcome
            raise
        finally:
            if not outcome.stays_owned:
                self.forget(resource)
        return outcome


def release_by_hand(release: Callable[[], object], put_back: Callable[[], object]) -> Outcome:
    """Call `release`; call `put_back` too if the resource stays owned. Raises what it raises.

    What is BUSY or TIMEOUT, returned or raised, stays owned, and what an interrupt fell into:
    that says nothing of the resource, and the owner's end looks again.
    """
    stays = True
    try:
        outcome = checked_outcome(release())
        stays = outcome.stays_owned
    except Exception as error:
        stays = fell_in(error) or (isinstance(error, ReleaseError) and error.outcome.stays_owned)
        raise
    finally:
        if stays:
            put_back()
    return outcome
