"""Things that one thread alone may give back, and how that is done from another."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING, Final, final

from probate.system import Future, call_on_loop, running_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import Outcome

#: Seconds that an event loop has for a call on its thread.
_PATIENCE: Final = 1.0


@final
class HomeThread:
    """The thread that a thing was adopted on, and the event loop that ran there, if one did."""

    __slots__ = ("_loop", "_thread")

    def __init__(self) -> None:
        self._thread = threading.current_thread()
        self._loop = running_loop()

    @property
    def name(self) -> str:
        """What the thread is called."""
        return self._thread.name

    @property
    def is_here(self) -> bool:
        """Whether this is the thread."""
        return threading.current_thread() is self._thread

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def call(self, end: Callable[[], Outcome]) -> Outcome | None:
        """End a thing on its thread: this one, or by the loop that runs there; None if not so.

        Raises what `end` raises.
        """
        if self.is_here:
            return end()
        ended: concurrent.futures.Future[Outcome] = Future()

        def call() -> None:
            try:
                ended.set_result(end())
            except BaseException as error:
                ended.set_exception(error)

        if self._loop is None or call_on_loop(self._loop, call) is None:
            return None
        with contextlib.suppress(concurrent.futures.TimeoutError):
            return ended.result(_PATIENCE)
        return None
