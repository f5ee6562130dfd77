"""Looking again and again at what nobody tells the end of."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol, final

from probate.system import forget_in_forked_child, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("probate")

#: Seconds between two looks, at first and at most.
_LOOK_AFTER: Final = 0.001
_LOOK_EVERY: Final = 0.02

#: How often to look at what may never come about.
_MAX_LOOKS: Final = 50


class Watched(Protocol):
    """What tells whether it is over, when asked."""

    def done(self) -> bool:
        """Whether it is over."""
        ...


@final
class Awaited:
    """Done when a condition holds, or was looked at so often that it never will."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        self._condition = condition
        self._looks = 0

    def done(self) -> bool:
        """Look once more."""
        self._looks += 1
        return self._looks > _MAX_LOOKS or self._condition()


@final
class Watch:
    """Looks at things again and again, on a thread of its own, and tells when they are over."""

    def __init__(self) -> None:
        self.forget_parent()
        forget_in_forked_child(self)

    def forget_parent(self) -> None:
        """Watch nothing, in a forked child, which has no such thread."""
        self._lock = threading.Lock()
        self._watched: list[tuple[Watched, Callable[[object], object]]] = []
        self._is_running = False

    def add(self, thing: Watched, callback: Callable[[object], object]) -> None:
        """Have `callback` called, with `thing`, when it is done; soon, and on another thread.

        Where no thread can be started, it is not.
        """
        with self._lock:
            self._watched.append((thing, callback))
            if self._is_running:
                return
            thread = threading.Thread(target=self._look, name="probate-tasks-watch", daemon=True)
            self._is_running = True
            try:
                start_thread(thread)
            except RuntimeError:
                if thread.ident is not None:
                    raise
                self._is_running = False
                logger.warning("no thread can be started to see when %r is over", thing)

    def _look(self) -> None:
        pause = _LOOK_AFTER
        while True:
            time.sleep(pause)
            with self._lock:
                watched = self._watched
                over = [each for each in watched if each[0].done()]
                self._watched = [each for each in watched if each not in over]
                self._is_running = is_to_go_on = bool(self._watched)
            for thing, callback in over:
                try:
                    callback(thing)
                except Exception:
                    logger.exception("told that %r is over", thing)
            if not is_to_go_on:
                return
            pause = _LOOK_AFTER if over else min(2 * pause, _LOOK_EVERY)
