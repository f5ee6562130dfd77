"""Future: a future of `concurrent.futures` that an exception of a signal handler leaves whole."""

from __future__ import annotations

import concurrent.futures
import threading
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@final
class Future(concurrent.futures.Future[T]):
    """A result that is yet to come, as `concurrent.futures.Future`; for use on the main thread.

    There a signal handler may raise anywhere. In the base class an exception that falls in just
    when its lock has been acquired, which a function of Python does, leaves it acquired, and
    whoever is to set the result waits for ever; one that falls into a callback that is called at
    once is swallowed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._condition: threading.Condition
        self._condition.__class__ = _Condition

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Have `fn` called with the future when it is done; at once, and raising, if it is."""
        with self._condition:
            if not self.done():
                super().add_done_callback(fn)
                return
        fn(self)


class _Condition(threading.Condition):
    """Acquires and releases by its lock's own methods, of C, where `with` lets nothing fall in."""

    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))
