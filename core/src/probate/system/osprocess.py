"""One OS process, pinned, so that nothing meant for it reaches a successor of its pid."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from typing import TYPE_CHECKING, Final, Self, final

from probate.errors import PidfdUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

#: Where `starttime` stands in /proc/PID/stat, counted from what follows the name (proc(5)).
_START_TIME: Final = 19

#: How many bytes are asked for at a time.
_PIECE: Final = 1 << 16


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
        self._pidfd: _Descriptor | None = _Descriptor(pidfd)

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
        made = cls(os_pid, 0, _pidfd_open(os_pid))
        try:
            made.start_time = start_time_of(os_pid)
            # Not reaped yet, so the pid was its own while the start time was read.
            if not made.is_there():
                raise ProcessLookupError(errno.ESRCH, f"no process {os_pid}")
        except BaseException:
            made.close()
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
        pidfd = self._pidfd
        return -1 if pidfd is None else pidfd.number

    def close(self) -> None:
        """Close the pidfd, as soon as no other thread is using it. Idempotent."""
        self._pidfd = None

    def send_signal(self, number: int) -> bool:
        """Send a signal (pidfd_send_signal(2)); False if the process has been reaped.

        Raises PermissionError, ValueError for a bad number.
        """
        pidfd = self._pidfd
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd.number, number)
        except ProcessLookupError:
            return False
        except OverflowError:
            raise ValueError(f"no signal {number!r}") from None
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
        pidfd = self._pidfd
        if pidfd is None:
            return True
        poll = select.poll()
        poll.register(pidfd.number, select.POLLIN)
        return bool(poll.poll(0))

    def exit_code(self, *, reap: bool) -> int | None:
        """How it ended, as subprocess puts it: -9 is death by signal 9; None while it runs.

        Tells of children of this host that nobody has reaped yet, otherwise raises
        ChildProcessError. With `reap`, it is reaped, and its pid free for others (waitid(2)).
        """
        pidfd = self._pidfd
        if pidfd is None:
            raise ChildProcessError(errno.ECHILD, f"process {self.os_pid} is no longer held")
        options = os.WEXITED | os.WNOHANG | (0 if reap else os.WNOWAIT)
        found = os.waitid(os.P_PIDFD, pidfd.number, options)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


@final
class _Descriptor:
    """A descriptor that is closed when nobody uses it any more.

    If it were closed while another thread is about to use it, the number could be that of
    another process's pidfd by then, and the signal reach that one.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.number)


def start_time_of(os_pid: int) -> int:
    """When a process was started, in clock ticks since boot. Raises ProcessLookupError."""
    return int(stat_of(os_pid)[_START_TIME])


def read_proc(path: str) -> bytes:
    """All that a file of /proc says, with as few calls as it takes. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, _PIECE)
        # A short read is not the end: some files are handed out by the page (seq_file).
        while piece := os.read(fd, _PIECE):
            text += piece
    finally:
        os.close(fd)
    return text


def stat_of(os_pid: int) -> list[bytes]:
    """What /proc/PID/stat says after the name: state, parent, group, session, and so on.

    Raises ProcessLookupError.
    """
    try:
        text = read_proc(f"/proc/{os_pid}/stat")
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
        except OverflowError:
            raise ProcessLookupError(errno.ESRCH, f"no process {os_pid}") from None
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):
                raise PidfdUnavailableError(os.strerror(error.errno)) from error
            if error.errno in (errno.EINVAL, errno.ENOENT):
                # A thread of a process, and not its first: ENOENT from Linux 6.15 on.
                raise ProcessLookupError(errno.ESRCH, f"no process {os_pid}") from None
            raise
    raise ProcessLookupError(errno.ESRCH, f"no process {os_pid}")
