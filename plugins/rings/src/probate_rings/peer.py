"""Whether the OS process at the other end of a ring is alive.

A process that is killed closes nothing in shared memory, and a child that it forked keeps its
descriptors open. So each end writes down which OS process it is, and the other watches that
by pidfd (pidfd_open(2)); pid and start time together are never used twice.
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import NamedTuple, Self, final

from probate_rings import layout


@final
class OsProcess(NamedTuple):
    """An OS process, told so that another one can find it."""

    pid: int
    #: Clock ticks since boot (proc(5), field 22 of stat).
    started: int
    #: Inode of the pid namespace, in which alone the pid means something.
    namespace: int

    @classmethod
    def this(cls) -> Self:
        """The calling one."""
        pid = os.getpid()
        return cls(pid, _start_time(pid), _pid_namespace())

    def open_pidfd(self) -> int | None:
        """Return a pidfd to watch it by; None if that needs, or makes, no sense here.

        Raises ProcessLookupError if it is dead.
        """
        if self.pid == os.getpid() or not self.pid or self.namespace != _pid_namespace():
            return None
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            raise
        except (OSError, OverflowError):
            # What the other end wrote is no pid, or the kernel does not let us.
            return None
        try:
            # Now that it is held, the number means one process only.
            is_the_one = _start_time(self.pid) == self.started
        except OSError:
            is_the_one = False
        if not is_the_one:
            os.close(pidfd)
            raise ProcessLookupError
        return pidfd


@final
class Presence:
    """What the two ends of a ring tell of themselves in shared memory. Not thread-safe."""

    __slots__ = ("_is_dead", "_other", "_own", "_pidfd", "_words")

    def __init__(self, words: memoryview, *, is_owner: bool) -> None:
        self._words = words
        self._own, self._other = (
            (layout.OWNER, layout.PEER) if is_owner else (layout.PEER, layout.OWNER)
        )
        #: None until it is known whom to watch, -1 if there is nobody.
        self._pidfd: int | None = None
        self._is_dead = False

    def announce(self) -> None:
        """Say that this end is open, and which OS process has it."""
        at = self._own
        self._words[at + 1], self._words[at + 2], self._words[at + 3] = OsProcess.this()
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
        if self._pidfd is None:
            other = OsProcess(*self._words[self._other + 1 : self._other + 4].tolist())
            try:
                pidfd = other.open_pidfd()
            except ProcessLookupError:
                self._is_dead = True
                return True
            self._pidfd = -1 if pidfd is None else pidfd
        if self._pidfd != -1:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            self._is_dead = bool(poll.poll(0))
        return self._is_dead

    def watched(self) -> list[int]:
        """What becomes readable when the other end dies: a pidfd, or nothing."""
        return [] if self._pidfd is None or self._pidfd == -1 else [self._pidfd]

    def close(self) -> None:
        """Watch no more."""
        if self._pidfd is not None and self._pidfd != -1:
            os.close(self._pidfd)
        self._pidfd = -1


def _start_time(pid: int) -> int:
    # The command name, in parentheses, may contain anything.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
