"""GroupWitness: tells whether a signal that has come went to the whole process group.

Who signals a group (`kill %1`, timeout(1), a program with `kill 0`) has reached the command as well
as us: to pass that on would signal it twice, which many programs take for impatience. The kernel
does not say which it was. So there is a third one in the group, to whom nobody sends anything.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
from typing import TYPE_CHECKING, Final, NoReturn, final

from probate.system.closing import hold_only

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Number and sender of a signal; what it says begins with one of nobody, so as to be something.
_SEEN: Final = struct.Struct("Ii")

#: Seconds that it gets for an answer, until it is continued, should it be stopped, and after that.
_PATIENCE: Final = (0.2, 10.0)


@final
class GroupWitness:
    """A child that only looks which signals come to it. It ends when we do, or close it."""

    __slots__ = ("_answers", "_pidfd", "_questions", "os_pid")

    def __init__(self) -> None:
        """Start it; all signals are blocked. Raises OSError."""
        questions, self._questions = os.pipe()
        self._answers, answers = os.pipe()
        self.os_pid: Final = os.fork()
        if self.os_pid == 0:
            _look(questions, answers)
        os.close(questions)
        os.close(answers)
        self._pidfd: Final = os.pidfd_open(self.os_pid)

    def seen(self) -> set[tuple[int, int]]:
        """Return number and sender of what has come to it, and so to each member of the group."""
        wait_for_group()
        with contextlib.suppress(OSError):
            os.write(self._questions, b"?")
            for patience in _PATIENCE:
                if select.select([self._answers], [], [], patience)[0]:
                    return set(_SEEN.iter_unpack(os.read(self._answers, select.PIPE_BUF)))
                self.carry_on()
        return set()

    def carry_on(self) -> None:
        """Continue it, if it was stopped with the group."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def close(self) -> None:
        """End it, and wait until it is gone."""
        os.close(self._questions)
        os.close(self._answers)
        with contextlib.suppress(OSError):
            # It does not see the end of the pipe if it was stopped with the group.
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)


def wait_for_group() -> None:
    """Wait until a signal that is being sent to our group has come to each member.

    Whoever sends it holds a lock meanwhile that this takes (kernel/signal.c, kill_pgrp;
    kernel/sys.c, setpgid). It has no other effect.
    """
    with contextlib.suppress(OSError):
        os.setpgid(0, os.getpgrp())


def _look(questions: int, answers: int) -> NoReturn:
    try:
        # Nothing of what we were given is to be held by it.
        hold_only({questions, answers})
        while os.read(questions, 1):
            os.write(answers, _SEEN.pack(0, 0) + b"".join(_seen()))
    finally:
        os._exit(0)


def _seen() -> Iterator[bytes]:
    everything = signal.valid_signals()
    while (info := signal.sigtimedwait(everything, 0)) is not None:
        if info.si_pid != os.getppid():
            yield _SEEN.pack(info.si_signo, info.si_pid)
