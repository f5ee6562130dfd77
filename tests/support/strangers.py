"""Families of programs that this host starts in no tree, beside those that are in one."""

from __future__ import annotations

import gc
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self, final

import processes_kernel as kernel

from probate import OsProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: One that leaves a daemon of its own; they say their pids, at last that one whose child it was.
FAMILY: Final = ("sh", "-c", "(setsid sh -c 'echo $$; exec sleep 300' &); echo $$; exec sleep 300")


@final
class Strangers:
    """Starts strangers on whatever thread, and tells how many of their families were touched.

    Meanwhile the collector runs as often as can be, which calls finalizers.
    """

    def __init__(self) -> None:
        self._popens: list[subprocess.Popen[bytes]] = []
        self.started = 0
        self.touched = 0

    def __enter__(self) -> Self:
        self._threshold = gc.get_threshold()
        gc.set_threshold(20, 2, 2)
        return self

    def __exit__(self, *_: object) -> None:
        gc.set_threshold(*self._threshold)
        gc.collect()
        self.end()

    def start(self) -> None:
        """Start one on this thread."""
        self._popens.append(subprocess.Popen(FAMILY, stdout=subprocess.PIPE))

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Start two while something else is done: by a finalizer, and on another thread.

        They live until the next two are started.
        """
        self.end()
        self.start_by_finalizer()
        thread = threading.Thread(target=self.start)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def start_by_finalizer(self) -> None:
        """Have one started when the collector comes by, on whatever thread that is."""
        _Finalized(self.start)

    def end(self) -> None:
        """See whether those that were started live, both of each; end them."""
        while self._popens:
            popen = self._popens.pop()
            self.started += 1
            assert popen.stdout is not None
            with popen, popen.stdout as said:
                members = [_pinned(said.readline()) for _ in range(2)]
                living = [each for each in members if each is not None and not each.has_exited()]
                self.touched += len(living) < len(members)
                for each in living:
                    each.send_signal(signal.SIGKILL)
                    kernel.wait_for_exit(each)
            for each in filter(None, members):
                with each, suppress(ChildProcessError):
                    # Of the daemon this host is the parent only if there is a tree.
                    each.exit_code(reap=True)


@final
class _Finalized:
    def __init__(self, start: Callable[[], None]) -> None:
        self._start = start
        #: Only the collector ends it.
        self.itself = self

    def __del__(self) -> None:
        self._start()


def _pinned(line: bytes) -> OsProcess | None:
    try:
        return OsProcess.open(int(line))
    except (ValueError, ProcessLookupError):
        # It had not even said who it is, or it is gone.
        return None
