"""OS processes, each pinned by a pidfd; and what /proc says of them."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from io import FileIO
from typing import TYPE_CHECKING, Final, Self, final

from probate.errors import PidfdUnavailableError
from probate.system.arguments import checked_int
from probate.system.descriptor import OwnedDescriptor

if TYPE_CHECKING:
    from types import TracebackType

#: Where `starttime` stands in /proc/PID/stat, counted from what follows the name (proc(5)).
_START_TIME: Final = 19

#: Nanoseconds in which that is counted.
_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

#: How many bytes are asked for at a time.
_PIECE: Final = 1 << 16


@final
class OsProcess:
    """Pins one OS process by a pidfd (pidfd_open(2)), so that signals reach no other one.

    A pid alone will not do: the kernel gives it to another process as soon as the first one has
    been reaped, whereas the descriptor refers to one process for ever. It is a context manager,
    which closes the descriptor and leaves the process itself alone.
    """

    __slots__ = ("_pidfd", "os_pid", "start_time")

    def __init__(self, os_pid: int, start_time: int = 0) -> None:
        self.os_pid = os_pid
        #: Clock ticks between the machine's boot and the process's start.
        self.start_time = start_time
        self._pidfd: _Pidfd | None = None

    @classmethod
    def open(cls, os_pid: int) -> Self:
        """Pin the process that has this pid now; it may be a zombie, but not reaped.

        Raises ProcessLookupError if there is none, PidfdUnavailableError where the kernel has no
        pidfds, TypeError for what is no int and ValueError for what is below 1.
        """
        os_pid = checked_int("an OS pid", os_pid, least=1)
        made = cls(os_pid)
        made.pin()
        try:
            made.start_time = start_time_of(os_pid)
            # Not reaped yet, so the pid was its own while the start time was read.
            with contextlib.suppress(PermissionError):
                signal.pidfd_send_signal(made.fileno(), 0)
        except ProcessLookupError:
            made.close()
            raise _not_found(os_pid) from None
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    def gone(cls, os_pid: int) -> Self:
        """Stand for a process that was reaped before anybody could pin it, and had this pid.

        It is what an object is that has been closed: nothing reaches another process.
        """
        return cls(os_pid)

    def pin(self) -> None:
        """Open the pidfd of a child that nobody else reaps. Raises as `open_pidfds`."""
        # Held before it is opened: whatever falls in, it is closed.
        self._pidfd = pidfd = _Pidfd()
        open_pidfds(pidfd.numbers, self.os_pid)
        pidfd.descriptor  # noqa: B018  looked at now: later, its number may be another's

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
        """Return the pidfd, which is readable once the process has exited; -1 when closed."""
        pidfd = self._pidfd
        return -1 if pidfd is None else pidfd.number

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """The pidfd; nothing when closed."""
        pidfd = self._pidfd
        return () if pidfd is None else (pidfd.descriptor,)

    def close(self) -> None:
        """Close the pidfd, as soon as no other thread is using it; twice does no harm."""
        self._pidfd = None

    def send_signal(self, number: int) -> bool:
        """Send a signal (pidfd_send_signal(2)); return False if the process has been reaped.

        Raises ValueError for what is no signal, PermissionError if it is another user's process,
        OSError (EBADF) if somebody else has closed the pidfd, and it may be another's.
        """
        pidfd = self._pidfd
        if pidfd is None:
            return False
        self._check(pidfd)
        try:
            signal.pidfd_send_signal(pidfd.number, number)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise ValueError(f"no signal {number!r}") from None
        return True

    def is_there(self) -> bool:
        """Tell whether its pid is still its own: it runs, or is a zombie."""
        try:
            return self.send_signal(0)
        except PermissionError:
            return True

    def has_exited(self) -> bool:
        """Tell whether it has exited; True when closed. Raises OSError (EBADF) as `send_signal`."""
        pidfd = self._pidfd
        if pidfd is None:
            return True
        poll = select.poll()
        poll.register(pidfd.number, select.POLLIN)
        if not poll.poll(0):
            return False
        self._check(pidfd)
        return True

    def exit_code(self, *, reap: bool) -> int | None:
        """Return how it ended, as subprocess puts it (-9: by signal 9); None while it runs.

        With `reap`, it is reaped, and its pid free for others (waitid(2)). Raises
        ChildProcessError if it is no child of this process, or has been reaped already, OSError
        (EBADF) as `send_signal`.
        """
        pidfd = self._pidfd
        if pidfd is None:
            raise ChildProcessError(errno.ECHILD, f"process {self.os_pid} is no longer held")
        self._check(pidfd)
        options = os.WEXITED | os.WNOHANG | (0 if reap else os.WNOWAIT)
        found = os.waitid(os.P_PIDFD, pidfd.number, options)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def _check(self, pidfd: _Pidfd) -> None:
        """Raise OSError if the number is another's by now: it may be the pidfd of a stranger."""
        if not pidfd.descriptor.is_ours:
            text = f"somebody else has closed the pidfd of process {self.os_pid}"
            raise OSError(errno.EBADF, text)


@final
class _Pidfd:
    """Closes a pidfd when nobody refers to it any more, if its number is its own still.

    If it were closed while another thread is about to use it, its number could be that of
    another process's pidfd by then, and a signal would reach that one.
    """

    __slots__ = ("_descriptor", "numbers")

    def __init__(self) -> None:
        #: It alone, once it is open.
        self.numbers: list[int] = []
        self._descriptor: OwnedDescriptor | None = None

    @property
    def number(self) -> int:
        return self.numbers[0] if self.numbers else -1

    @property
    def descriptor(self) -> OwnedDescriptor:
        if self._descriptor is None:
            self._descriptor = OwnedDescriptor(self.number)
        return self._descriptor

    def __del__(self) -> None:
        if self.numbers:
            self.descriptor.close()


def start_time_of(os_pid: int) -> int:
    """Return when a process was started, in clock ticks since boot. Raises ProcessLookupError."""
    return int(stat_of(os_pid)[_START_TIME])


def ticks_since_boot() -> int:
    """Return the clock by which `start_time_of` says when a process was started (proc(5))."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // _TICK


@final
class _ProcFile(FileIO):
    """A file that is closed without a ResourceWarning if an exception fell in as it was opened."""

    __slots__ = ()

    #: Not of Python: an exception that a signal handler raises in there would be lost.
    __del__ = FileIO.close


def read_proc(path: str) -> bytes:
    """Read a whole file of /proc, with as few system calls as it takes. Raises OSError."""
    # An object, and not its number: an exception of a signal handler that falls in just when it is
    # open would leave that open for good.
    with _ProcFile(path) as file:
        text: bytes = file.read(_PIECE)
        # A short read is not the end: some files are handed out by the page (seq_file).
        while piece := file.read(_PIECE):
            text += piece
    return text


def stat_of(os_pid: int) -> list[bytes]:
    """Read the fields of /proc/PID/stat after the name: state, parent, group, session (proc(5)).

    Raises ProcessLookupError.
    """
    try:
        text = read_proc(f"/proc/{os_pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        raise _not_found(os_pid) from None
    # A name may contain spaces and parentheses; it ends at the last one.
    return text[text.rindex(b")") + 2 :].split()


def open_pidfds(numbers: list[int], os_pid: int, count: int = 1) -> None:
    """Open pidfds, as `OsProcess.open` does, and add them: to see whether that works, or to keep.

    In one step: no exception falls in when one is open that is not in the list. Raises
    ProcessLookupError, PidfdUnavailableError where the kernel has none, OSError.
    """
    # Not there on other systems, or where Python was built without.
    if not hasattr(os, "pidfd_open"):
        raise PidfdUnavailableError("this Python has no os.pidfd_open")
    try:
        numbers.extend(map(os.pidfd_open, (os_pid,) * count))
        return
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            raise PidfdUnavailableError(os.strerror(error.errno)) from error
        # The last two are a thread that is not its process's first: ENOENT from Linux 6.15 on.
        if error.errno not in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            raise
    except OverflowError:
        pass
    raise _not_found(os_pid)


def _not_found(os_pid: int) -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, f"no process {os_pid}")
