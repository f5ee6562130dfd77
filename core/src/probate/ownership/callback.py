"""Callback: a function to be called when its owner ends, and where it has to run."""

from __future__ import annotations

import contextlib
import inspect
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, final

from probate.errors import safe_repr
from probate.outcome import Outcome
from probate.system.descriptor import OwnedDescriptor
from probate.system.loops import run_on_loop, running_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@final
class Callback:
    """Calls a function, with these arguments, when its owner ends; adopted like any resource.

    For what no kind knows: `Process.callback` and `adopt(thing, release=...)` make them, and a
    plugin whose `adopt` takes them (kind `callbacks`) keeps them. A plain function is called on
    the thread that ends the owner; a coroutine function runs on the event loop that ran where the
    callback was made, or on a new one if none did. Raises TypeError for what cannot be called.
    """

    __slots__ = ("_call", "_loop", "descriptors", "identity", "name")

    def __init__(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        if not callable(function):
            raise TypeError(f"expected a function to call, got {function!r}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"a generator function does nothing when it is called: {function!r}")
        self._call: partial[Any] = partial(function, *args, **kwargs)
        self._loop = running_loop()
        #: What may have one owner only: the thing that is released, or the callback itself.
        self.identity: object = self
        #: The descriptor number that it closes, if it is known to be one: its owner's alone.
        self.descriptors: tuple[OwnedDescriptor, ...] = ()
        if function is os.close and len(args) == 1:
            with contextlib.suppress(OSError, TypeError):
                self.descriptors = (OwnedDescriptor(args[0]),)
        self.name = getattr(function, "__qualname__", None) or safe_repr(function)

    @classmethod
    def releasing(cls, thing: T, release: Callable[[T], object] | Callable[[], object]) -> Self:
        """Make a callback that calls `release(thing)`, or `release()` for a method of the thing.

        Both `release=Session.close` and `release=session.close` then close the session.
        """
        is_its_method = hasattr(release, "__self__") and release.__self__ is thing
        made = cls(release) if is_its_method or not _takes_one(release) else cls(release, thing)
        if not made.descriptors:
            # A number is not known by what it is: it comes round.
            made.identity = thing
        return made

    def __repr__(self) -> str:
        what = "" if self.identity is self else f" of {safe_repr(self.identity)}"
        what += "".join(f" of descriptor {each.number}" for each in self.descriptors)
        return f"{self.name}(){what}"

    def __call__(self) -> Outcome:
        """Call the function; return its outcome. Raises what it raises, or what its loop does.

        A descriptor that was closed elsewhere, and may be another's, is ALREADY_GONE.
        """
        if not all(each.is_ours for each in self.descriptors):
            return Outcome.ALREADY_GONE
        if inspect.iscoroutinefunction(self._call.func):
            answer = run_on_loop(self._call, self._loop)
        else:
            answer = self._call()
            if inspect.isawaitable(answer):
                answer = self._awaited(answer)
        return answer if isinstance(answer, Outcome) else Outcome.RELEASED

    def _awaited(self, answer: Awaitable[object]) -> object:
        try:
            return run_on_loop(lambda: answer, self._loop)
        except BaseException:
            if inspect.iscoroutine(answer):
                # It may never have begun, which the interpreter would warn of as well.
                answer.close()
            raise


def _takes_one(function: Callable[..., object]) -> bool:
    """Tell whether a function can be called with one argument; in doubt, yes."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True
