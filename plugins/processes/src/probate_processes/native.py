"""The Python objects that stand for OS processes, and how each learns that its own has ended."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shlex
import subprocess
import sys
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol, final

from probate import OsProcess
from probate.system import Future, lazy_module

if TYPE_CHECKING:
    import asyncio.subprocess
    import multiprocessing.process
    from collections.abc import Callable, Sequence

    import psutil

    from probate.process import Argument
    from probate_processes.plain import NoPipes
else:
    asyncio = lazy_module("asyncio")
    multiprocessing = lazy_module("multiprocessing")
    psutil = lazy_module("psutil")


class Native(Protocol):
    """Stands for the first process of a tree: what the tree needs of such an object."""

    os_pid: int
    #: Whether it must be a child of this host.
    is_child: bool

    @property
    def identity(self) -> object:
        """The object that has one owner, and is found by it."""

    def record_exit(self, leader: OsProcess) -> None:
        """Take note of how it ended, while it is a zombie, which it stays for now."""

    def reap(self, leader: OsProcess) -> None:
        """Reap it, unless that is somebody else's to do."""

    def resolve_exited(self) -> None:
        """Tell whoever waits for it that it has exited; once, however often it is called."""


@final
class Child:
    """Stands for an OS process that was spawned: what `ProcessTreeManager.spawn` returns."""

    def __init__(
        self,
        popen: subprocess.Popen[Any] | NoPipes,
        argv: Sequence[Argument],
        process: OsProcess,
    ) -> None:
        self._popen = popen
        self._process = process
        self.os_pid: int = process.os_pid
        self.is_child = True
        self.argv = tuple(argv)
        #: How it ended, as subprocess puts it; None while it runs, or if nobody can tell.
        self.returncode: int | None = None
        #: Done, with the return code, when it has exited.
        self.exited: concurrent.futures.Future[int | None] = Future()

    def __repr__(self) -> str:
        words = [os.fsdecode(argument) for argument in self.argv]
        text = shlex.join(words)
        return f"{self.os_pid} {text[:77] + '...' if len(text) > 80 else text}"

    @property
    def identity(self) -> object:
        """The child itself is what its user knows."""
        return self

    @property
    def stdin(self) -> IO[Any] | None:
        """Our end of a pipe to it; closed when it is settled."""
        return self._popen.stdin

    @property
    def stdout(self) -> IO[Any] | None:
        """Our end of a pipe from it; the caller's to close."""
        return self._popen.stdout

    @property
    def stderr(self) -> IO[Any] | None:
        """Our end of a pipe from it; the caller's to close."""
        return self._popen.stderr

    def send_signal(self, number: int) -> bool:
        """Send it a signal; False if it is gone. Raises ValueError for a bad number."""
        return self._process.send_signal(number)

    def record_exit(self, leader: OsProcess) -> None:
        """Keep the return code."""
        if self.returncode is not None:
            return
        # Somebody who reaps every child, or ignores SIGCHLD, has left us nothing to see.
        with contextlib.suppress(ChildProcessError):
            self.returncode = leader.exit_code(reap=False)
        # Popen would otherwise complain, and wait for a pid that may be another's by then.
        self._popen.returncode = 0 if self.returncode is None else self.returncode

    def reap(self, leader: OsProcess) -> None:
        """Reap it, and close the pipe to it; what it has written can still be read."""
        with contextlib.suppress(ChildProcessError):
            leader.exit_code(reap=True)
        if self._popen.stdin is not None:
            # What is still buffered has no reader any more.
            with contextlib.suppress(OSError):
                self._popen.stdin.close()

    def resolve_exited(self) -> None:
        """Tell whoever waits for it, after all that there is to know is known."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self.exited.set_result(self.returncode)


@final
class Adopted:
    """Wraps the object that stands for an OS process which was started elsewhere."""

    def __init__(
        self,
        native: object,
        os_pid: int,
        reap: Callable[[OsProcess], object],
        *,
        is_child: bool,
        errors: tuple[type[Exception], ...] = (ValueError, OSError),
    ) -> None:
        self._native = native
        self._reap = reap
        #: What `reap` raises where there is nothing more to reap.
        self._errors = errors
        self.os_pid = os_pid
        self.is_child = is_child

    def __repr__(self) -> str:
        return f"{self.os_pid} {type(self._native).__name__}"

    @property
    def identity(self) -> object:
        """What was adopted."""
        return self._native

    def record_exit(self, leader: OsProcess) -> None:
        """Leave the status to be read by the object that its user knows."""

    def reap(self, leader: OsProcess) -> None:
        """Have it waited for by that very object, which then knows the status."""
        if not leader.is_there():
            # The object would wait for the pid, which may be that of another child by now.
            return
        # Closed, detached, or waited for by somebody else: then it has been reaped.
        with contextlib.suppress(*self._errors):
            self._reap(leader)

    def resolve_exited(self) -> None:
        """Tell nobody: its user waits with the object itself."""


def native_of(resource: object) -> Adopted | None:
    """Wrap what stands for an OS process in Python; None for anything else.

    Raises ValueError for one that has ended, or was never started.
    """
    # Before somebody has imported a library, nothing can be its: it is not imported to ask.
    if isinstance(resource, subprocess.Popen):
        native = Adopted(resource, resource.pid, lambda _: resource.poll(), is_child=True)
        is_over = resource.poll() is not None
    elif "multiprocessing" in sys.modules and isinstance(
        resource, multiprocessing.process.BaseProcess
    ):
        if resource.pid is None:
            raise ValueError(f"not started, so it cannot be adopted: {resource!r}")
        # Asking for the exit code reaps it. A fork server's are not our children.
        native = Adopted(resource, resource.pid, lambda _: resource.exitcode, is_child=False)
        is_over = resource.exitcode is not None
    elif isinstance(resource, asyncio.subprocess.Process):
        reap = partial(_reap_of_asyncio, resource)
        native = Adopted(resource, resource.pid, reap, is_child=True)
        is_over = resource.returncode is not None
    elif "psutil" in sys.modules and isinstance(resource, psutil.Process):
        native, is_over = _of_psutil(resource)
    else:
        return None
    if is_over:
        raise ValueError(f"it has ended, so it cannot be adopted: {resource!r}")
    return native


def _of_psutil(process: psutil.Process) -> tuple[Adopted, bool]:
    """The wrapper, and whether the process has ended."""
    if isinstance(process, psutil.Popen):
        errors = (ValueError, OSError, psutil.Error)
        popen = Adopted(
            process, process.pid, lambda _: process.poll(), is_child=True, errors=errors
        )
        return popen, process.poll() is not None
    # Whoever started it may hold another object, which would find that it has been reaped: whoever
    # waits, by whichever object, gets the status.
    native = Adopted(process, process.pid, lambda _: None, is_child=False)
    # Compares the time of creation, so that a recycled pid is told.
    return native, not process.is_running() or _has_exited(process.pid)


def _has_exited(os_pid: int) -> bool:
    """Whether a process has; one whose main thread has ended looks like a zombie, and is none."""
    try:
        with OsProcess.open(os_pid) as pinned:
            return pinned.has_exited()
    except ProcessLookupError:
        return True


def _reap_of_asyncio(process: asyncio.subprocess.Process, leader: OsProcess) -> None:
    """Leave it to asyncio's child watcher; where the loop is closed, that waits for nobody."""
    # There is no public way to either.
    loop, transport = (getattr(process, name) for name in ("_loop", "_transport"))
    if loop.is_closed():
        code = leader.exit_code(reap=True)
        popen = transport.get_extra_info("subprocess")
        if isinstance(popen, subprocess.Popen):
            # As the transport does itself.
            popen.returncode = transport._returncode = code  # noqa: SLF001  as above
