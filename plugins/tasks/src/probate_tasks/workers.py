"""Threads for calls: so many at most for each process, and none that idles.

A `ThreadPoolExecutor` keeps its threads until it is shut down, and the interpreter waits for
them. Here a thread ends as soon as there is nothing left to call, at the price of starting
another for the next call, and is a daemon: a call that never returns keeps nobody from exiting.
One process's calls never wait for another's.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, final

from probate import forget_in_forked_child
from probate.system import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate_tasks.call import ThreadCall


logger = logging.getLogger("probate")

#: Seconds for a thread without work to end: time of our own code, never of the user's.
_EXIT_TIME: Final = 1.0


@final
class _Crew:
    """The threads that work for one process."""

    __slots__ = ("queue", "threads")

    def __init__(self) -> None:
        #: Calls that no thread has taken up, oldest first.
        self.queue: OrderedDict[ThreadCall, None] = OrderedDict()
        #: What each thread has in hand.
        self.threads: dict[threading.Thread, ThreadCall | None] = {}


@final
class Workers:
    """Has calls made, each on one of at most `limit` threads of its process.

    `serve` makes one call, for the pid that it was handed in for.
    """

    def __init__(self, limit: int, serve: Callable[[int, ThreadCall], None]) -> None:
        self._limit = limit
        self._serve = serve
        self.forget_parent()
        forget_in_forked_child(self)

    def forget_parent(self) -> None:
        """Have no threads, in a forked child, where there are none."""
        self._lock = threading.Lock()
        #: A process is in here for as long as a thread works for it.
        self._crews: dict[int, _Crew] = {}
        #: Threads on their way out.
        self._leaving: list[threading.Thread] = []

    def enqueue(self, pid: int, call: ThreadCall) -> None:
        """Make a call as soon as there is a thread for it.

        Raises RuntimeError if there is none, and none can be started; the call is not made then.
        """
        with self._lock:
            if call.is_over():
                call.confirm_cancelled()
                return
            crew = self._crews.get(pid) or _Crew()
            if len(crew.threads) < self._limit:
                # Under the lock, so that nobody relies on a thread that does not come to be.
                try:
                    self._start_thread(pid, crew)
                except RuntimeError:
                    if not crew.threads:
                        raise
            crew.queue[call] = None

    def withdraw(self, pid: int, call: ThreadCall) -> bool:
        """Take a call back; False if a thread has taken it up."""
        with self._lock:
            crew = self._crews.get(pid)
            return crew is not None and crew.queue.pop(call, self) is None

    def drop(self, pid: int, call: ThreadCall) -> bool:
        """Make a call no more, queued or not; False if a thread has taken it up."""
        with self._lock:
            crew = self._crews.get(pid)
            if crew is None:
                return True
            crew.queue.pop(call, None)
            return call not in crew.threads.values()

    def join_idle(self, pid: int) -> None:
        """Wait until the threads that `pid` has no more work for are gone."""
        with self._lock:
            threads = list(self._leaving)
            crew = self._crews.get(pid)
            if crew is not None and not crew.queue:
                threads += [t for t, call in crew.threads.items() if call is None or call.is_over()]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(_EXIT_TIME)

    def _start_thread(self, pid: int, crew: _Crew) -> None:
        thread = threading.Thread(
            target=self._work, args=(pid, crew), name=f"probate-tasks-{pid}", daemon=True
        )
        crew.threads[thread] = None
        self._crews[pid] = crew
        try:
            start_thread(thread)
        except BaseException:
            if thread.ident is None:
                self._dismiss(pid, crew, thread)
            # Else it finds no work, and ends.
            raise

    def _dismiss(self, pid: int, crew: _Crew, thread: threading.Thread) -> None:
        """Count a thread no more, and its process, if it was the last."""
        crew.threads.pop(thread, None)
        if not crew.threads and self._crews.get(pid) is crew:
            del self._crews[pid]

    def _work(self, pid: int, crew: _Crew) -> None:
        while (call := self._next(pid, crew)) is not None:
            try:
                self._serve(pid, call)
            except BaseException:
                # Out of a callback of the future; of an Exception concurrent.futures tells itself.
                logger.exception("process %d: a callback of %r", pid, call)
            del call  # as in its `run`

    def _next(self, pid: int, crew: _Crew) -> ThreadCall | None:
        """What this thread is to do next; None if it is to end."""
        thread = threading.current_thread()
        with self._lock:
            if crew.queue:
                call, _ = crew.queue.popitem(last=False)
                crew.threads[thread] = call
                return call
            self._dismiss(pid, crew, thread)
            self._leaving = [t for t in self._leaving if t.is_alive()] + [thread]
            return None
