"""SignalQueue: every signal that comes to this process, one by one, with who has sent it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.system.clib import last_error, libc

if TYPE_CHECKING:
    from collections.abc import Iterable

#: PR_SET_DUMPABLE (prctl(2)).
_SET_DUMPABLE: Final = 4

#: struct signalfd_siginfo (signalfd(2)): its size, and ssi_signo, ssi_errno, ssi_code, ssi_pid.
_SIZE: Final = 128
_HEAD: Final = struct.Struct("IiiI")


@final
class Arrived(NamedTuple):
    """Says which signal has come, and from whom."""

    number: int
    #: As in siginfo_t (sigaction(2)).
    code: int
    #: Who has sent it; 0 if that is the kernel, or somebody of another PID namespace.
    sender: int

    @property
    def is_of_a_process(self) -> bool:
        """Whether kill(2) or the like has sent it, and not the kernel, as for a key."""
        return self.code <= 0


@final
class SignalQueue:
    """All signals of this process, from here on blocked and queued: none acts by itself.

    What cannot be blocked acts as ever (signal(7)), and so does what an instruction is at fault of.
    """

    __slots__ = ("_number", "mask_before")

    def __init__(self) -> None:
        """Raises OSError."""
        #: What was blocked before: whoever is started is to find it so again.
        self.mask_before: Final = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # A sigset_t of the C library's, in which all signals are; it has 1024 bits.
        everything = (ctypes.c_char * 128).from_buffer_copy(b"\xff" * 128)
        self._number: Final[int] = libc().signalfd(-1, everything, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._number < 0:
            raise last_error("signalfd")

    def fileno(self) -> int:
        """Return the number to poll: there is something to read when a signal has come."""
        return self._number

    def take_only(self, numbers: Iterable[int]) -> None:
        """Queue no others from now on: they stay pending, and do nothing."""
        mask = sum(1 << number - 1 for number in numbers)
        libc().signalfd(self._number, (ctypes.c_uint64 * 16)(mask), 0)

    def read(self) -> list[Arrived]:
        """Take out what has come so far."""
        arrived: list[Arrived] = []
        while True:
            try:
                info = os.read(self._number, _SIZE)
            except BlockingIOError:
                return arrived
            number, _, code, sender = _HEAD.unpack_from(info)
            arrived.append(Arrived(number, code, sender))


def die_of(number: int) -> None:
    """End by a signal that is blocked, as another process has: without a core, since that has its.

    Returns if there is no such signal that would end us.
    """
    libc().prctl(_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0)
    with contextlib.suppress(OSError):
        # Of SIGKILL there is no other.
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
