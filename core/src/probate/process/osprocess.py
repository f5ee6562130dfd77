"""One OS process, pinned, so that nothing meant for it reaches a successor of its pid."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from probate.errors import PidfdUnavailableError

if TYPE_CHECKING:
    from types import TracebackType

#: Where `starttime` stands in /proc/PID/stat, counted from what follows the name (proc(5)).
_START_TIME: Final = 19


@final
class OsProcess:
    """A pidfd (pidfd_open(2)) with the pid and the start time that it belongs to.

    A pid alone says nothing: the kernel gives it to another process as soon as its first one
    has been reaped. The descriptor refers to one process for ever. A context manager, which
    closes the descriptor; the process itself is left alone.
    """

    __slots__ = ("_pidfd", "os_pid", "start_time")

    def __init__(self, os_pid: int, start_time: int, pidfd: int) -> None:
        self.os_pid = os_pid
        #: Clock ticks between the machine's boot and the process's start.
        self.start_time = start_time
        self._pidfd = pidfd

    @classmethod
    def open(cls, os_pid: int) -> Self:
        """Pin the process that has this pid now; it may be a zombie, but not reaped.

        Raises ProcessLookupError if there is none, PidfdUnavailableError where the kernel has no
        pidfds, TypeError or ValueError for what is no pid of a process.
        """
        if not isinstance(os_pid, int) or isinstance(os_pid, bool):
            raise TypeError(f"an OS pid must be an int, got {os_pid!r}")
        if os_pid <= 0:
            raise ValueError(f"an OS pid must be positive, got {os_pid}")
        pidfd = _pidfd_open(os_pid)
        try:
            start_time = start_time_of(os_pid)
            made = cls(os_pid, start_time, pidfd)
            # Not reaped yet, so the pid was its own while the start time was read.
            if not made.is_there():
                raise ProcessLookupError(errno.ESRCH, f"no process {os_pid}")
        except BaseException:
            os.close(pidfd)
            raise
        return made

    def __repr__(self) -> str:
        return f"<OsProcess {self.os_pid}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The pidfd, readable once the process has exited; -1 when closed."""
        return self._pidfd

    def close(self) -> None:
        """Close the pidfd. Idempotent."""
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd != -1:
            os.close(pidfd)

    def send_signal(self, number: int) -> bool:
        """Send a signal (pidfd_send_signal(2)); False if the process has been reaped.

        Raises PermissionError, ValueError for a bad number.
        """
        if self._pidfd == -1:
            return False
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return False
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise ValueError(f"no signal {number!r}") from None
            raise
        return True

    def is_there(self) -> bool:
        """Whether its pid is still its own: it runs, or is a zombie."""
        try:
            return self.send_signal(0)
        except PermissionError:
            return True

    def has_exited(self) -> bool:
        """Whether it runs no more; True when closed."""
        if self._pidfd == -1:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def exit_code(self, *, reap: bool) -> int | None:
        """How it ended, as subprocess puts it: -9 is death by signal 9; None while it runs.

        Tells of children of this host that nobody has reaped yet, otherwise raises
        ChildProcessError. With `reap`, it is reaped, and its pid free for others (waitid(2)).
        """
        if self._pidfd == -1:
            raise ChildProcessError(errno.ECHILD, f"process {self.os_pid} is no longer held")
        options = os.WEXITED | os.WNOHANG | (0 if reap else os.WNOWAIT)
        found = os.waitid(os.P_PIDFD, self._pidfd, options)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def start_time_of(os_pid: int) -> int:
    """When a process was started, in clock ticks since boot. Raises ProcessLookupError."""
    return int(stat_of(os_pid)[_START_TIME])


def stat_of(os_pid: int) -> list[bytes]:
    """What /proc/PID/stat says after the name: state, parent, group, session, and so on.

    Raises ProcessLookupError.
    """
    try:
        text = Path(f"/proc/{os_pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(errno.ESRCH, f"no process {os_pid}") from None
    # A name may contain spaces and parentheses; it ends at the last one.
    return text[text.rindex(b")") + 2 :].split()


def _pidfd_open(os_pid: int) -> int:
    # Not there on other systems, or where Python was built without.
    if not hasattr(os, "pidfd_open"):
        raise PidfdUnavailableError("this Python has no os.pidfd_open")
    with contextlib.suppress(ProcessLookupError):
        try:
            return os.pidfd_open(os_pid)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):
                raise PidfdUnavailableError(os.strerror(error.errno)) from error
            if error.errno == errno.EINVAL:
                # A thread of a process, and not its first.
                raise ProcessLookupError(errno.ESRCH, f"no process {os_pid}") from None
            raise
    raise ProcessLookupError(errno.ESRCH, f"no process {os_pid}")
