"""What happens at the interpreter's exit: managers that nobody has closed are closed, and named.

Exit functions run when all threads but daemons have ended, and while daemons still run, the latest
registered first (Python's `atexit`, and `Py_FinalizeEx`). So executors have ended their work by
then. Multiprocessing waits for its children after this: it has registered before.
"""

from __future__ import annotations

import atexit
import os
import time
import warnings
from typing import TYPE_CHECKING, Final, Protocol, final
from weakref import WeakKeyDictionary

from probate.system.interrupts import Elsewhere, fell_in

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from probate.models import ProcessInfo

#: How many processes are named in a warning.
_NAMES: Final = 3

#: Seconds that calls get which were under way when all was closed: a spawn takes milliseconds, and
#: whoever waits for a lock, or for the other end of a FIFO, may wait for ever.
_PATIENCE: Final = 5.0
#: Seconds between two looks whether they are over.
_LOOK: Final = 0.002


class Unclosed(Protocol):
    """Owns what the interpreter's exit must not leave behind: what is needed of a manager."""

    def list_processes(self) -> list[ProcessInfo]:
        """List the processes that have not terminated yet."""

    def count_held(self) -> dict[str, int]:
        """Count what is owned, by kind."""

    def close(self) -> None:
        """Terminate all."""

    def end_grace(self) -> None:
        """Give nobody a grace any more."""

    def has_calls(self) -> bool:
        """Tell whether any thread is about to acquire or to release something, on its own."""


@final
class OpenManagers:
    """Closes at the interpreter's exit what was added and not discarded, the latest first.

    Whoever is dropped lives on as long as a process of it runs, since what that owns would be lost
    without a word; with none, it is garbage as all else.
    """

    def __init__(self) -> None:
        #: In the order in which they were added.
        self._open: WeakKeyDictionary[Unclosed, None] = WeakKeyDictionary()
        #: Processes that run, each of which refers to its manager.
        self._running: set[Hashable] = set()
        #: The OS process that runs the exit functions which are registered.
        self._registered_in = 0
        #: Whether the exit has come, so that who is added now is not closed by it.
        self._is_over = False

    def add(self, manager: Unclosed) -> None:
        """Have a manager closed at exit."""
        if self._registered_in != os.getpid():
            self._register()
        self._open[manager] = None

    def discard(self, manager: Unclosed) -> None:
        """Leave out a manager that is closed."""
        self._open.pop(manager, None)

    def hold(self, process: Hashable) -> None:
        """Keep a process, and so its manager, until `let_go`; when all was closed, no longer.

        For whoever comes after that, a finaliser is the last one who can close its manager.
        """
        if not self._is_over:
            self._running.add(process)

    def let_go(self, process: Hashable) -> None:
        """Keep a process no longer that has terminated."""
        self._running.discard(process)

    def close_all(self) -> None:
        """Close all, whatever falls in meanwhile, which is raised in the end.

        Warns by a ResourceWarning of each that held anything, or had processes that still ran.
        """
        self._is_over = True
        try:
            self._close_all()
        except BaseException as error:
            if fell_in(error):
                for manager in self.managers():
                    manager.end_grace()
                Elsewhere(self._close_all).result()
            raise

    def _close_all(self) -> None:
        failure: Exception | None = None
        for manager in reversed(self.managers()):
            try:
                _close(manager)
            except Exception as error:
                # A warning that is an error, too, keeps no other from being closed.
                if fell_in(error):
                    raise
                failure = failure or error
        if failure is not None:
            raise failure

    def _register(self) -> None:
        """Have this OS process close all at its exit."""
        # Late, so that it is not imported with the core; before ours, so that it waits after it.
        from multiprocessing import process, util

        # Once more in a forked child, since multiprocessing drops what a child has inherited.
        atexit.unregister(self.close_all)
        atexit.register(self.close_all)
        if process.parent_process() is not None:
            # Its children end by os._exit, before Python 3.13 without a call of exit functions.
            util.Finalize(None, self.close_all, exitpriority=0)
        self._registered_in, self._is_over = os.getpid(), False

    def managers(self) -> list[Unclosed]:
        """List those that are to be closed, the oldest first."""
        return [each for ref in self._open.keyrefs() if (each := ref()) is not None]


def _close(manager: Unclosed) -> None:
    processes, held = manager.list_processes(), manager.count_held()
    try:
        manager.close()
    finally:
        if processes or held:
            names = ", ".join(repr(each.name) for each in processes[:_NAMES])
            names += ", ..." if len(processes) > _NAMES else ""
            owned = ", ".join(f"{kind} ({count})" for kind, count in held.items())
            warnings.warn(
                "a ProcessManager was not closed, but by the interpreter's exit; processes: "
                f"{len(processes)} ({names or 'none'}), owned: {owned or 'nothing'}; use `with`, "
                "or call close()",
                ResourceWarning,
                source=manager,
                stacklevel=2,
            )


def wait_for_calls(managers: Sequence[Unclosed]) -> None:
    """Wait until no call is under way that all was closed in the midst of."""
    over = time.monotonic() + _PATIENCE
    while any(each.has_calls() for each in managers) and time.monotonic() < over:
        time.sleep(_LOOK)


#: Those of this interpreter. Nothing is registered before the first.
open_managers: Final = OpenManagers()
