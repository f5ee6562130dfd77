"""Asking a tree to stop, and learning when all of it has."""

from __future__ import annotations

import contextlib
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Literal, final

from probate import death_watch
from probate.system import Future
from probate_processes.sharedmemory import is_resource_tracker

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable

    from probate import OsProcess
    from probate.system import Timer
    from probate_processes.procfs import Members

    #: Who of a tree is asked first.
    Stop = Literal["leader", "tree"]


def checked_stop(stop: object) -> Stop:
    """Check who is to be asked first. Raises ValueError."""
    if stop == "leader" or stop == "tree":
        return stop
    raise ValueError(f"stop is 'leader' (the others when it is gone) or 'tree', got {stop!r}")


@final
class Stopping:
    """Asks a tree to stop, by SIGTERM and SIGCONT, and tells when it has.

    The leader is asked first, since it may need the others to stop in good order. They are asked
    when it is gone, or half of the grace is over; at once, if the tree wants it so. Resource
    trackers are not asked: they end with those whom they serve. Descendants that turn up later are
    treated as the others. Nothing blocks; no polling. `scan` finds and pins the members of the
    tree that are not known yet; `reap` reaps a dead one.
    """

    def __init__(
        self,
        leader: OsProcess,
        scan: Callable[[Members], object],
        reap: Callable[[OsProcess], object],
        *,
        asks_all: bool,
    ) -> None:
        #: Done when nobody of the tree runs any more.
        self.stopped: concurrent.futures.Future[None] = Future()
        self._leader = leader
        self._scan = scan
        self._reap = reap
        self._asks_all = asks_all
        self._lock = threading.RLock()
        self._members: Members = {}
        #: Those who are watched, and not yet known to have exited.
        self._watched: dict[int, OsProcess] = {}
        #: Those who were asked, by pid and start time.
        self._asked: set[tuple[int, int]] = set()
        self._half: Timer | None = None

    def ask(self, grace: float | None) -> None:
        """Begin; `grace` is how many seconds there are, None if nobody knows."""
        with self._lock:
            self._go_on()
            if grace is None or grace == float("inf") or self._asks_all or self.stopped.done():
                return
            # Where there are no descriptors, the rest is killed unasked, if the leader stays.
            with contextlib.suppress(OSError):
                self._half = death_watch.call_later(grace / 2, self._ask_all)

    def is_waiting(self) -> bool:
        """Whether any of those who are known still runs."""
        with self._lock:
            return any(not process.has_exited() for process in self._members.values())

    def hand_over(self) -> Members:
        """Ask no more, and wait for nobody; return those who are known.

        By their descent, the dead among them could not be found again.
        """
        with self._lock:
            for process in self._watched.values():
                death_watch.forget(process.fileno())
            self._watched.clear()
            members, self._members = self._members, {}
            self._finish()
        return members

    def _ask_all(self) -> None:
        with self._lock:
            self._asks_all = True
            self._go_on()

    def _go_on(self) -> None:
        """Ask all members whose turn it is and that were not asked before."""
        if self.stopped.done():
            return
        # As far as there are descriptors for it: those who are left out are killed.
        with contextlib.suppress(OSError):
            self._scan(self._members)
        self._asks_all = self._asks_all or self._leader.has_exited()
        for os_pid, process in list(self._members.items()):
            if os_pid not in self._watched and not process.has_exited():
                self._watch(process)
            who = os_pid, process.start_time
            if who not in self._asked and self._is_due(os_pid):
                self._asked.add(who)
                with contextlib.suppress(PermissionError):
                    process.send_signal(signal.SIGTERM)
                    # A stopped process sees the first signal only when it goes on.
                    process.send_signal(signal.SIGCONT)
            if os_pid not in self._watched and not process.has_exited():
                del self._members[os_pid]
                process.close()
        if not self._watched:
            self._finish()

    def _is_due(self, os_pid: int) -> bool:
        if os_pid == self._leader.os_pid:
            return True
        return self._asks_all and not is_resource_tracker(os_pid)

    def _finish(self) -> None:
        if self._half is not None:
            death_watch.cancel(self._half)
            self._half = None
        if not self.stopped.done():
            self.stopped.set_result(None)

    def _watch(self, process: OsProcess) -> None:
        # No more descriptors or memory for it: it is asked all the same.
        with contextlib.suppress(OSError):
            death_watch.watch(process.fileno(), partial(self._note_exit, process))
            self._watched[process.os_pid] = process

    def _note_exit(self, process: OsProcess) -> None:
        with self._lock:
            self._watched.pop(process.os_pid, None)
            self._reap(process)
            if self._members.get(process.os_pid) is process and not process.is_there():
                del self._members[process.os_pid]
                process.close()
            if not self._watched or process.os_pid == self._leader.os_pid:
                # Whom has it left?
                self._go_on()
