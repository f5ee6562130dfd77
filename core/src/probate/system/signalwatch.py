"""SignalWatch: tells of signals at once, even while the main thread runs no Python code.

Python notes a signal in whichever thread the kernel gives it to, and calls its handler when the
main thread next runs Python code. One that comes just before that thread blocks, when it has looked
for the last time, wakes nobody: its handler is called when the main thread is back, which may be
never. But each is also written to a number (signal.set_wakeup_fd), as it comes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from typing import TYPE_CHECKING, Final, final

from probate.system.deathwatch import death_watch
from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable

#: Who has written, as the kernel tells it: pid, uid and gid (SCM_CREDENTIALS, unix(7)).
_SENDER: Final = struct.Struct("3i")


@final
class SignalWatch:
    """Calls `notice` with the number of each signal that has a Python handler, on another thread.

    While it has users, and nobody else has signals written elsewhere, such as an event loop, which
    wakes the main thread for each. `notice` must not block. It is opened and closed in the main
    thread, and without a lock, since that may be done by a signal handler.
    """

    def __init__(self, notice: Callable[[int], object]) -> None:
        self._notice = notice
        self._users: set[object] = set()
        #: The descriptors that signals are read from, and written to. Made once, and never closed:
        #: whoever has signals written elsewhere for a while puts it back, as uvloop does.
        self._ends: tuple[int, int] | None = None
        forget_in_forked_child(self)

    def open(self, user: object) -> None:
        """Watch until `close`, as far as there are descriptors and threads for it."""
        self._users.add(user)
        with contextlib.suppress(OSError, RuntimeError):
            if self._ends is None:
                self._ends = _pair()
            reader, writer = self._ends
            before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            if before not in (-1, writer):
                signal.set_wakeup_fd(before)
            self._watch(reader)

    def close(self, user: object) -> None:
        """Undo `open`; the last one ends the watch."""
        self._users.discard(user)
        if not self._users and self._ends is not None:
            reader, writer = self._ends
            _give_up(writer)
            death_watch.forget(reader)

    def forget_parent(self) -> None:
        """Watch nothing, in a forked child."""
        self._users = set()
        if self._ends is not None:
            _give_up(self._ends[1])
            for end in self._ends:
                os.close(end)
            self._ends = None

    def _watch(self, reader: int) -> None:
        # By whoever is first of an `open` and a `_read` that is under way.
        with contextlib.suppress(ValueError):
            death_watch.watch(reader, self._read)
        if not self._users:
            # Closed meanwhile.
            death_watch.forget(reader)

    def _read(self) -> None:
        if self._ends is None:
            return
        reader, numbers = socket.socket(fileno=self._ends[0]), bytearray()
        try:
            while True:
                data, notes, _, _ = reader.recvmsg(64, socket.CMSG_SPACE(_SENDER.size))
                # A child that is forked elsewhere writes to it as well, until its program runs.
                if any(_SENDER.unpack(note[2])[0] == os.getpid() for note in notes):
                    numbers += data
        except BlockingIOError:
            pass
        finally:
            fd = reader.detach()
        # Where neither descriptors nor threads are left, the handlers have to do.
        with contextlib.suppress(OSError, RuntimeError):
            self._watch(fd)
        for number in numbers:
            self._notice(number)


def _pair() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return reader.detach(), writer.detach()


def _give_up(writer: int) -> None:
    """Have signals no longer written to it; what others have set stays set."""
    before = signal.set_wakeup_fd(-1)
    if before not in (-1, writer):
        signal.set_wakeup_fd(before)
