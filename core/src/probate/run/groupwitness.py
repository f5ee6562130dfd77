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
from typing import TYPE_CHECKING, Final, NoReturn, final

if TYPE_CHECKING:
    from probate.run.signalqueue import Arrived

#: Seconds that it gets for an answer.
_PATIENCE: Final = 0.2


@final
class GroupWitness:
    """A child that only looks which signals come to it. It ends when we do, or close it."""

    __slots__ = ("_answers", "_pidfd", "_questions")

    def __init__(self) -> None:
        """Start it; all signals are blocked. Raises OSError."""
        questions, self._questions = os.pipe()
        self._answers, answers = os.pipe()
        os_pid = os.fork()
        if os_pid == 0:
            _look(questions, answers)
        os.close(questions)
        os.close(answers)
        self._pidfd: Final = os.pidfd_open(os_pid)

    def has_seen(self, signal_: Arrived) -> bool:
        """Tell whether the witness, and so each member of the group, has got the same one."""
        with contextlib.suppress(OSError):
            # Whoever signals a group holds a lock meanwhile that this waits for: when it returns,
            # all members have got it (kernel/signal.c, kill_pgrp; kernel/sys.c, setpgid).
            os.setpgid(0, os.getpgrp())
        with contextlib.suppress(OSError):
            # It may have been stopped with the group, and we continued without it.
            signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)
            os.write(self._questions, b"?")
            if select.select([self._answers], [], [], _PATIENCE)[0]:
                seen = os.read(self._answers, select.PIPE_BUF).decode().split()
                return f"{signal_.number}:{signal_.sender}" in seen
        return False

    def close(self) -> None:
        """End it, and wait until it is gone."""
        os.close(self._questions)
        os.close(self._answers)
        with contextlib.suppress(OSError):
            # It does not see the end of the pipe if it was stopped with the group.
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)


def _look(questions: int, answers: int) -> NoReturn:
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        # Nothing of what we were given is to be held by it.
        low, high = sorted((questions, answers))
        os.closerange(3, low)
        os.closerange(low + 1, high)
        os.closerange(high + 1, os.sysconf("SC_OPEN_MAX"))
        while os.read(questions, 1):
            os.write(answers, " ".join(_seen()).encode() or b" ")
    finally:
        os._exit(0)


def _seen() -> list[str]:
    seen = []
    everything = signal.valid_signals()
    while (info := signal.sigtimedwait(everything, 0)) is not None:
        seen.append(f"{info.si_signo}:{info.si_pid}")
    return seen
