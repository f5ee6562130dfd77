"""Whether the OS process at the other end of a ring is alive.

A process that is killed closes nothing in shared memory, and a child that it forked keeps its
descriptors open. So each end writes down which OS process it is, and the other watches that
by pidfd (pidfd_open(2)); pid and start time together are never used twice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

from probate import PidfdUnavailableError
from probate.system import OsProcess, start_time_of
from probate_rings import layout


@final
class Presence:
    """What the two ends of a ring tell of themselves in shared memory. Not thread-safe."""

    __slots__ = ("_is_dead", "_is_known", "_other", "_own", "_process", "_words")

    def __init__(self, words: memoryview, *, is_owner: bool) -> None:
        self._words = words
        self._own, self._other = (
            (layout.OWNER, layout.PEER) if is_owner else (layout.PEER, layout.OWNER)
        )
        #: Whether it is known whom to watch; and whom, if that makes sense here.
        self._is_known = False
        self._process: OsProcess | None = None
        self._is_dead = False

    def announce(self) -> None:
        """Say that this end is open, and which OS process has it."""
        at, pid = self._own, os.getpid()
        self._words[at + 1] = pid
        self._words[at + 2] = start_time_of(pid)
        self._words[at + 3] = _pid_namespace()
        self._words[at] = layout.OPEN

    def withdraw(self) -> None:
        """Say that this end is closed."""
        self._words[self._own] = layout.CLOSED

    def claim(self, role: int) -> bool:
        """Take a role that one end alone can have; False if the other end has it."""
        if not self._words[role]:
            self._words[role] = self._own
        return bool(self._words[role] == self._own)

    def is_other_closed(self) -> bool:
        """Whether the other end says that it is closed."""
        return bool(self._words[self._other] == layout.CLOSED)

    def is_other_dead(self) -> bool:
        """Whether the OS process at the other end has died. A system call: for idle moments."""
        if self._is_dead or self._words[self._other] != layout.OPEN:
            return self._is_dead
        if not self._is_known:
            try:
                self._process = self._pin_other()
            except ProcessLookupError:
                self._is_dead = True
                return True
            self._is_known = True
        if self._process is not None:
            self._is_dead = self._process.has_exited()
        return self._is_dead

    def watched(self) -> list[int]:
        """What becomes readable when the other end dies: a pidfd, or nothing."""
        return [] if self._process is None else [self._process.fileno()]

    def close(self) -> None:
        """Watch no more."""
        self._is_known, self._process = True, None

    def _pin_other(self) -> OsProcess | None:
        """Pin the other end's OS process; None if that needs, or makes, no sense here.

        Raises ProcessLookupError if it is dead.
        """
        pid, started, namespace = self._words[self._other + 1 : self._other + 4].tolist()
        if pid == os.getpid() or namespace != _pid_namespace():
            return None
        try:
            process = OsProcess.open(pid)
        except ProcessLookupError:
            raise
        except (OSError, ValueError, PidfdUnavailableError):
            # What the other end wrote is no pid, or the kernel does not let us.
            return None
        if process.start_time != started:
            raise ProcessLookupError
        return process


def _pid_namespace() -> int:
    """Inode of the pid namespace, in which alone a pid means something."""
    return Path("/proc/self/ns/pid").stat().st_ino
