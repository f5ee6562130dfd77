"""Asking a tree to stop, and learning when all of it has."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, final

from probate import death_watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import OsProcess
    from probate_processes.procfs import Members


@final
class Stopping:
    """Asks a tree to stop, by SIGTERM and SIGCONT to all of it, and tells when it has.

    Descendants that turn up later are asked as well. Nothing blocks; no polling. `scan` finds
    and pins the members of the tree that are not known yet; `reap` reaps a dead one.
    """

    def __init__(
        self, scan: Callable[[Members], object], reap: Callable[[OsProcess], None]
    ) -> None:
        #: Done when nobody of the tree runs any more.
        self.stopped: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._scan = scan
        self._reap = reap
        self._lock = threading.RLock()
        #: Asked, watched, and not yet known to have exited.
        self._asked: dict[int, OsProcess] = {}
        self._members: Members = {}

    def ask(self) -> None:
        """Ask all members that were not asked before."""
        with self._lock:
            if self.stopped.done():
                return
            # As far as there are descriptors for it: those who are left out are killed.
            with contextlib.suppress(OSError):
                self._scan(self._members)
            for os_pid, process in list(self._members.items()):
                if os_pid in self._asked:
                    continue
                with contextlib.suppress(PermissionError):
                    process.send_signal(signal.SIGTERM)
                    # A stopped process sees the first signal only when it goes on.
                    process.send_signal(signal.SIGCONT)
                if not process.has_exited() and not self._watch(process):
                    del self._members[os_pid]
                    process.close()
            if not self._asked:
                self.stopped.set_result(None)

    def is_waiting(self) -> bool:
        """Whether any of those who are known still runs."""
        with self._lock:
            return any(not process.has_exited() for process in self._members.values())

    def hand_over(self) -> Members:
        """Ask no more, and wait for nobody; return those who are known.

        By their descent, the dead among them could not be found again.
        """
        with self._lock:
            for process in self._asked.values():
                death_watch.forget(process.fileno())
            self._asked.clear()
            members, self._members = self._members, {}
            if not self.stopped.done():
                self.stopped.set_result(None)
        return members

    def _watch(self, process: OsProcess) -> bool:
        self._asked[process.os_pid] = process
        try:
            death_watch.watch(process.fileno(), partial(self._note_exit, process))
        except OSError:
            # No more descriptors or memory for it. It is asked all the same.
            del self._asked[process.os_pid]
            return False
        return True

    def _note_exit(self, process: OsProcess) -> None:
        with self._lock:
            self._asked.pop(process.os_pid, None)
            self._reap(process)
            if not process.is_there():
                self._members.pop(process.os_pid, None)
                process.close()
            if not self._asked:
                # The last that was known: whom has it left?
                self.ask()
