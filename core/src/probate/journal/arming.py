"""Reaper: a small process that outlives this host, and does what it cannot do when it is dead."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from probate.journal.reaper import MOST_BYTES
from probate.system.deathwatch import death_watch
from probate.system.descriptor import OwnedDescriptor
from probate.system.peer import receive_fds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Seconds that a reaper gets to start, on however busy a machine.
_STARTING: Final = 15.0

#: Seconds that it gets to take a request, and to end; it needs some microseconds.
_PATIENCE: Final = 5.0

_PROGRAM: Final = Path(__file__).with_name("reaper.py")


@final
class Reaper:
    """A running reaper. It ends when it is closed, or when this host ends in any way.

    It is in a session of its own, a child of nobody's here, and holds no descriptors but those
    that it needs.
    """

    __slots__ = ("_is_over", "_number", "_pidfd", "_socket")

    def __init__(self, connection: socket.socket, pidfd: int) -> None:
        self._socket = connection
        self._number = OwnedDescriptor(connection.fileno())
        self._pidfd = OwnedDescriptor(pidfd)
        self._is_over = False

    @classmethod
    def start(cls) -> Self:
        """Start one and wait until it is ready. Raises OSError."""
        if not sys.executable or getattr(sys, "frozen", False):
            raise OSError("this program has no Python interpreter to run it")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                starter = subprocess.Popen(  # noqa: S603  our interpreter and our program
                    [sys.executable, "-I", "-S", str(_PROGRAM)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,
                )
            return cls(ours, _introduce(ours, starter))
        except BaseException as error:
            ours.close()
            if isinstance(error, (ValueError, subprocess.SubprocessError)):
                raise OSError(f"{type(error).__name__}: {error}") from error
            raise

    @property
    def pidfd(self) -> int:
        """Refers to the reaper's OS process; -1 when closed."""
        return -1 if self._is_over else self._pidfd.number

    def watch(self, on_death: Callable[[Reaper], object]) -> None:
        """Have `on_death` called, on the thread of the death watch, if it ends unasked."""
        # It never says anything again: what there is to read is the end.
        death_watch.watch(self._socket.fileno(), lambda: on_death(self))

    def guard(self, number: int, pidfd: int) -> None:
        """Have it continue the OS process behind `pidfd` should this host die.

        A request that was sent is served, whatever becomes of this host then. Raises OSError if
        it takes no more.
        """
        self._send(b"+%d" % number, pidfd)

    def forget(self, number: int) -> None:
        """Have it guard that one no more."""
        with contextlib.suppress(OSError):
            self._send(b"-%d" % number)

    def settle(self, name: str, program: Sequence[str]) -> None:
        """Have it run a program when this host has died, unless `settled(name)` comes first.

        Raises OSError as `guard` does.
        """
        self._ask(b"=", [name, list(program)])

    def settled(self, name: str) -> None:
        """Have it leave out the program of that name: there is nothing to settle."""
        with contextlib.suppress(OSError):
            self._send(b"." + os.fsencode(name))

    def run(self, program: Sequence[str], stdin: int) -> None:
        """Have it run a program now, for which nobody waits, with that file as its standard input.

        Raises OSError.
        """
        self._ask(b"!", list(program), stdin)

    def close(self) -> None:
        """End it, and wait until it is gone. What it guards still, it continues. Idempotent."""
        if self._is_over:
            return
        self._is_over = True
        death_watch.forget(self._socket.fileno())
        self._close_socket()
        if self._pidfd.is_ours:
            self._await_end(self._pidfd.number)
        self._pidfd.close()

    def _ask(self, what: bytes, value: object, *descriptors: int) -> None:
        request = what + json.dumps(value).encode()
        if len(request) > MOST_BYTES:
            raise OSError(f"the reaper takes no request of {len(request)} bytes")
        self._send(request, *descriptors)

    def _send(self, request: bytes, *descriptors: int) -> None:
        if not self._number.is_open:
            # What has the number by now is somebody else's.
            raise OSError(errno.EBADF, "somebody has closed the reaper's socket by its number")
        socket.send_fds(self._socket, [request], descriptors)

    def _close_socket(self) -> None:
        if self._number.is_open:
            self._socket.close()
        else:
            self._socket.detach()

    def _await_end(self, pidfd: int) -> None:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_PATIENCE * 1000):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        # It is a child where this host inherits orphans: as init, or as a subreaper (prctl(2)).
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)

    def disown(self) -> None:
        """Let go of it in a forked child: it is the parent's."""
        self._is_over = True
        self._close_socket()
        self._pidfd.close()


def _introduce(connection: socket.socket, starter: subprocess.Popen[bytes]) -> int:
    """Introduce this host to a reaper; return its pidfd. Raises OSError, ValueError."""
    connection.settimeout(_STARTING)
    own_pidfd = os.pidfd_open(os.getpid())
    try:
        socket.send_fds(connection, [b"!"], [own_pidfd])
        answer, descriptors = receive_fds(connection, 1, 1)
    except OSError:
        starter.kill()
        starter.wait()
        raise
    finally:
        os.close(own_pidfd)
    # It has handed over to a child of its own, and ended; or it has just ended.
    code = starter.wait()
    if answer != b"!" or not descriptors:
        raise ValueError(f"{sys.executable} ended with code {code} before the reaper was ready")
    connection.settimeout(_PATIENCE)
    return descriptors[0]
