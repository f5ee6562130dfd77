"""Namespaces of its own for a command: what it leaves in them goes with them, whoever dies.

Processes, POSIX queues, System V objects and /dev/shm are its own; files are shared with all, so
that results stay. Three processes stand in a row (pid_namespaces(7)): the front's child, which is
in no new pid namespace and stands for the command to the front; the init of the new one, which
reaps and ends with the command; and the command.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, final

from probate.errors import ProbateError
from probate.run.messages import is_readable, receive, send
from probate.run.signalqueue import SignalQueue, die_of
from probate.run.terminal import stop_by
from probate.system.clib import last_error, libc
from probate.system.closing import hold_only
from probate.system.osprocess import stat_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: CLONE_NEW*, linux/sched.h.
_MOUNTS: Final = 0x00020000
_IPC: Final = 0x08000000
_USER: Final = 0x10000000
_PIDS: Final = 0x20000000

#: MS_REC | MS_SLAVE (mount(2)): what is mounted outside is seen, and nothing of ours is outside.
_SEEING: Final = 0x4000 | 0x80000

#: Seconds between two looks at who is left in a namespace.
_PAUSE: Final = 0.005

#: F_SETSIG (asm-generic/fcntl.h).
_SET_SIGNAL: Final = 10

#: linux/prctl.h.
_SET_PDEATHSIG: Final = 1
_SET_DUMPABLE: Final = 4


class IsolationUnavailableError(ProbateError):
    """Raised where a command can have no namespaces of its own; it is not run then."""


def isolate(grace: float, look_on: Callable[[], object]) -> None:
    """Have this process, a child that is about to become the command, stand for it to its parent.

    Returns in the command's own process. `look_on` is called when the namespaces are there, and
    nobody is in them. Who is left in them when the command has ended by itself gets `grace` seconds
    to stop. Raises IsolationUnavailableError.
    """
    front = os.getppid()
    try:
        _unshare()
        _mount("none", "/", None, _SEEING)
        _mount("tmpfs", "/dev/shm", "tmpfs", data="mode=1777")  # noqa: S108  that is what it is
        if Path("/dev/mqueue").is_dir():
            _mount("mqueue", "/dev/mqueue", "mqueue")
    except OSError as error:
        raise _unavailable(error) from error
    look_on()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    init = os.fork()
    if init == 0:
        ours.close()
        if _be_init(theirs, grace):
            return
    theirs.close()
    _stand_for(ours, init, front)


def _unshare() -> None:
    flags = _MOUNTS | _IPC | _PIDS
    user, group = os.geteuid(), os.getegid()
    if libc().unshare(flags) == 0:
        return
    # Without the right to, in a user namespace, where it has that.
    _check(libc().unshare(flags | _USER), "unshare")
    libc().prctl(_SET_DUMPABLE, ctypes.c_ulong(1), 0, 0, 0)
    with suppress(FileNotFoundError):
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


# -- the three ---------------------------------------------------------------


def _be_init(channel: socket.socket, grace: float) -> bool:
    """Be the init of the pid namespace, and never return; True in the command's process."""
    try:
        libc().prctl(_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
        try:
            _mount("proc", "/proc", "proc")
        except OSError as error:
            send(channel, {"problem": str(_unavailable(error))})
            return False
        command = os.fork()
        if command == 0:
            channel.close()
            return True
        pidfd = os.pidfd_open(command)
        send(channel, {"started": command}, pidfd)
        hold_only({channel.fileno(), pidfd})
        status = _reap_until(command, channel)
        if os.WIFEXITED(status):
            _end_the_rest(grace)
        send(channel, {"ended": status})
    except BaseException:
        # With it goes all that is in the namespace.
        os._exit(1)
    os._exit(0)


def _reap_until(command: int, channel: socket.socket) -> int:
    """Reap all, until the command has ended; return its status. Tell when it is stopped."""
    while True:
        os_pid, status = os.waitpid(-1, os.WUNTRACED)
        if os_pid != command:
            continue
        if not os.WIFSTOPPED(status):
            return status
        send(channel, {"stopped": os.WSTOPSIG(status)})


def _end_the_rest(grace: float) -> None:
    """Ask all others in the namespace to stop, and reap them; those who do not are killed."""
    over = time.monotonic() + grace
    for number in (signal.SIGTERM, signal.SIGCONT):
        with suppress(ProcessLookupError):
            os.kill(-1, number)
    with suppress(ChildProcessError):
        while time.monotonic() < over:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(_PAUSE)


def _stand_for(channel: socket.socket, init: int, front: int) -> NoReturn:
    """Stand for the command: be signalled, stop and end in its place, and never return.

    Raises IsolationUnavailableError.
    """
    message, descriptors = receive(channel)
    if not descriptors:
        os.waitpid(init, 0)
        raise IsolationUnavailableError(str(message.get("problem", "its init has died")))
    try:
        signals = SignalQueue()
        command = _Inside(message["started"], descriptors[0])
        hold_only({channel.fileno(), command.pidfd, signals.fileno()})
        _end_as(_relay(channel, signals, command, front), init)
    finally:
        os._exit(1)


@final
class _Inside(NamedTuple):
    """The command, as seen from where the /proc of its namespace is mounted."""

    #: The pid that it has inside.
    os_pid: int
    pidfd: int

    def send_signal(self, number: int) -> None:
        """Signal it; it may have ended."""
        with suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, number)

    def is_stopped(self) -> bool:
        """Tell whether it stands still, also for a debugger."""
        with suppress(ProcessLookupError):
            return stat_of(self.os_pid)[0] in (b"T", b"t")
        return False


def _relay(channel: socket.socket, signals: SignalQueue, command: _Inside, front: int) -> int:
    """Pass on what the front sends, and stop with the command; return how that has ended."""
    _be_continued_by(channel)
    poll = select.poll()
    for fd in (channel.fileno(), signals.fileno()):
        poll.register(fd, select.POLLIN)
    while True:
        events = dict(poll.poll())
        if signals.fileno() in events:
            _pass_on(signals, command, front)
        if channel.fileno() in events:
            message, _ = receive(channel)
            if "stopped" not in message:
                # An init that was killed has told nothing, and taken the command with it.
                return int(message.get("ended", signal.SIGKILL))
            stop_by(message["stopped"])
            # Here somebody has continued this process, or the init has news. Whoever continues the
            # group has continued the command, too: a program that draws by then would lose what it
            # draws by another signal. Looked at once: it may be stopped again soon.
            if command.is_stopped() and not is_readable(channel.fileno()):
                command.send_signal(signal.SIGCONT)


def _pass_on(signals: SignalQueue, command: _Inside, front: int) -> None:
    for arrived in signals.read():
        # Others reach the command themselves: it is in the same process group.
        if arrived.sender == front:
            command.send_signal(arrived.number)


def _be_continued_by(channel: socket.socket) -> None:
    """Have what comes by a socket continue this process, should it be stopped (fcntl(2))."""
    fcntl.fcntl(channel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(channel, _SET_SIGNAL, signal.SIGCONT)
    fcntl.fcntl(channel, fcntl.F_SETFL, fcntl.fcntl(channel, fcntl.F_GETFL) | os.O_ASYNC)


def _end_as(status: int, init: int) -> NoReturn:
    """End as the command has, when all that was in the namespace is gone."""
    os.waitpid(init, 0)
    if not os.WIFSIGNALED(status):
        os._exit(os.WEXITSTATUS(status))
    die_of(os.WTERMSIG(status))
    os._exit(1)


# -- what is below -----------------------------------------------------------


def _mount(
    source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None
) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind, data)]
    _check(libc().mount(*words[:3], ctypes.c_ulong(flags), words[3]), f"mount of {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        raise last_error(what)


def _unavailable(error: OSError) -> IsolationUnavailableError:
    if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EINVAL):
        return IsolationUnavailableError(
            f"--isolate needs namespaces, which this kernel or container refuses ({error.filename}:"
            f" {error.strerror}); without it, what the command leaves is given back all the same"
        )
    return IsolationUnavailableError(f"--isolate: {error}")
