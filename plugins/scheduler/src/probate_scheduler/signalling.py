"""SIGSTOP and SIGCONT by pidfd, to one OS process or to the whole group that it leads.

The group is reached as such on kernels from 6.9 on, by PIDFD_SIGNAL_PROCESS_GROUP
(pidfd_send_signal(2)); it stands even when its leader is dead and reaped, since the kernel gives
the number of a group to nobody else while it has members. Elsewhere the process alone is
stopped, and its children run on.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.system import stat_of

if TYPE_CHECKING:
    from probate import OsProcess

#: PIDFD_SIGNAL_PROCESS_GROUP, include/uapi/linux/pidfd.h.
_PROCESS_GROUP: Final = 1 << 2

#: Where these stand in /proc/PID/stat, counted from what follows the name (proc(5)).
_STATE, _GROUP, _START_TIME = 0, 2, 19

#: Stopped by a signal, or by a tracer (proc(5)).
_STOPPED_STATES: Final = (b"T", b"t")


@final
class Condition(NamedTuple):
    """What the kernel says of an OS process."""

    is_stopped: bool
    leads_group: bool


@functools.cache
def reaches_groups() -> bool:
    """Whether this kernel signals a group by pidfd. Found out with signal 0, which does nothing."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(pidfd, 0, None, _PROCESS_GROUP)
    except OSError as error:
        # No group of this number is another answer: ESRCH.
        return error.errno != errno.EINVAL
    finally:
        os.close(pidfd)
    return True


def condition_of(process: OsProcess) -> Condition | None:
    """How it is with an OS process; None if it has been reaped."""
    try:
        stat = stat_of(process.os_pid)
    except ProcessLookupError:
        return None
    if int(stat[_START_TIME]) != process.start_time:
        return None
    # The host's own group would be stopped with the host.
    leads_group = int(stat[_GROUP]) == process.os_pid != os.getpgrp()
    return Condition(stat[_STATE] in _STOPPED_STATES, leads_group and reaches_groups())


def stop(process: OsProcess, *, group: bool) -> None:
    """Send SIGSTOP; to a process that is gone it does nothing. Raises PermissionError."""
    _send(process, signal.SIGSTOP, _PROCESS_GROUP if group else 0)


def resume(process: OsProcess, *, group: bool) -> None:
    """Send SIGCONT, as `stop` sent SIGSTOP. Raises PermissionError."""
    if group:
        _send(process, signal.SIGCONT, _PROCESS_GROUP)
    # Also if it was moved to another group meanwhile.
    _send(process, signal.SIGCONT, 0)


def _send(process: OsProcess, number: signal.Signals, flags: int) -> None:
    if process.fileno() != -1:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process.fileno(), number, None, flags)
