"""Terminal: what a command shares with us, as one job of a shell that has job control.

Keys and sizes need no work of ours: the kernel tells the whole process group in the foreground.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from typing import Any, Final, final


def stop_as(number: int) -> None:
    """Stop as the command has, by that signal, until somebody continues us.

    Whoever waits for us, a shell with job control, then knows that its job is stopped. A group
    that no such shell looks after, an orphaned one, is not stopped by keys (POSIX, 11.1.4), nor
    are we by what stops the command.
    """
    if number != signal.SIGSTOP or _is_looked_after():
        stop_by(number)


def stop_by(number: int) -> None:
    """Stop by a signal that is blocked, until somebody continues us."""
    if number != signal.SIGSTOP:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    # Here it is stopped.
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_looked_after() -> bool:
    """Tell whether our parent is of our session, and of another group: it can continue us."""
    with contextlib.suppress(OSError):
        parent = os.getppid()
        return os.getsid(parent) == os.getsid(0) and os.getpgid(parent) != os.getpgrp()
    return False


@final
class Terminal:
    """The terminal that we were started at, with its modes as they were; or none."""

    __slots__ = ("_group", "_modes", "_number")

    def __init__(self) -> None:
        self._number: Final = _open_terminal()
        self._modes: list[Any] | None = None
        self._group: int | None = None
        if self._number is not None:
            with contextlib.suppress(OSError, termios.error):
                self._group = os.tcgetpgrp(self._number)
            # From the background it would be the modes of whoever has the foreground: a shell that
            # edits its next line.
            if self._group in {None, os.getpgrp()}:
                with contextlib.suppress(termios.error):
                    self._modes = termios.tcgetattr(self._number)

    def restore(self) -> None:
        """Put back the modes, and who has the foreground, for a command that was killed.

        Not while another job has the foreground: then it is that one's terminal. All signals are
        blocked, so that nothing of this can stop us.
        """
        if self._number is None or self._modes is None:
            return
        with contextlib.suppress(OSError, termios.error):
            if self._group is not None and os.tcgetpgrp(self._number) != self._group:
                if _is_group(os.tcgetpgrp(self._number)):
                    return
                # A shell of its own, say: it is dead, and nobody could read.
                os.tcsetpgrp(self._number, self._group)
            if termios.tcgetattr(self._number) != self._modes:
                termios.tcsetattr(self._number, termios.TCSANOW, self._modes)


def _is_group(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _open_terminal() -> int | None:
    """Return a number of its own for the terminal of a standard stream, or the controlling one."""
    for number in range(3):
        with contextlib.suppress(OSError):
            if os.isatty(number):
                return os.dup(number)
    with contextlib.suppress(OSError):
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return None
