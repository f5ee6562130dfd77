"""POSIX message queues (mq_overview(7))."""

from __future__ import annotations

import contextlib
import os
import select
import stat
from typing import TYPE_CHECKING, Final, final

from probate import BusyResourceError, Outcome, RefusedResourceError
from probate_ipc import native as kernel
from probate_ipc.errors import QueueClosedError, QueueEmptyError, QueueFullError
from probate_ipc.handle import PATIENCE
from probate_ipc.interruptible import InterruptibleWait, TimeLimit

if TYPE_CHECKING:
    from probate_ipc.native import PosixQueueNative

#: Seconds after which a user who waits looks whether the queue still has its name: nothing
#: tells it, in this OS process or another, that the owner has unlinked it.
_LOOK_EVERY: Final = 0.1


@final
class PosixQueue:
    """An open POSIX message queue, and whether its name is the holder's to unlink.

    On Linux its descriptor can be polled, so threads wait for it without being blocked in
    mq_receive, which mq_close would not end. A *user* who waits gets QueueClosedError soon after
    the owner has unlinked the queue; what others do by mq_receive alone the kernel never ends.
    """

    __slots__ = ("_identity", "_receivers", "_senders", "is_owner", "native")

    def __init__(self, native: PosixQueueNative, *, is_owner: bool) -> None:
        #: The `posix_ipc.MessageQueue`.
        self.native = native
        self.is_owner = is_owner
        #: Device and inode. The number is nobody else's for as long as the queue is open.
        self._identity = _inode(native)
        self._senders = InterruptibleWait(self._closed_error)
        self._receivers = InterruptibleWait(self._closed_error)

    def __repr__(self) -> str:
        return f"<PosixQueue {self.describe()}>"

    @property
    def name(self) -> str:
        """Its name, which begins with a slash."""
        return self.native.name

    @property
    def max_messages(self) -> int:
        """How many messages it holds at most."""
        return self.native.max_messages

    @property
    def max_message_size(self) -> int:
        """How many bytes a message has at most."""
        return self.native.max_message_size

    @property
    def current_messages(self) -> int:
        """How many messages there are at this moment."""
        return self.native.current_messages

    @property
    def closed(self) -> bool:
        """Whether it is closed here."""
        return self.native.mqd == -1

    @property
    def identity(self) -> object:
        """The native object."""
        return self.native

    @property
    def reserved(self) -> int:
        """Bytes that its messages may take up; none of a user's."""
        return self.max_messages * self.max_message_size if self.is_owner else 0

    def fileno(self) -> int:
        """Its descriptor, to be polled; -1 when closed."""
        return self.native.mqd

    def describe(self) -> str:
        """Its name, and whose it is."""
        return f"POSIX queue {self.name!r}{'' if self.is_owner else ', as a user'}"

    def send(self, message: bytes, *, priority: int = 0, timeout: float | None = None) -> None:
        """Send a message, waiting for room for `timeout` seconds; None waits for ever.

        The highest priority, 0 to 32767, is received first (mq_send(3)). Raises QueueFullError,
        QueueClosedError, ValueError for a message that is too long.
        """
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise TypeError(f"a priority is an int, got {priority!r}")
        if not 0 <= priority < kernel.POSIX_PRIORITIES:
            raise ValueError(f"a priority is 0 to {kernel.POSIX_PRIORITIES - 1}, got {priority}")
        limit = TimeLimit(timeout)
        with self._senders:
            while True:
                self._check_open()
                if not self.is_owner and self._is_unlinked:
                    raise self._unlinked_error()
                try:
                    # Never waits in there: a timeout of 0 is one look.
                    return self.native.send(message, 0, priority)
                except kernel.WOULD_WAIT as error:
                    if limit.is_over:
                        raise QueueFullError(f"no room within {timeout} s: {self!r}") from error
                self._wait(self._senders, select.POLLOUT, limit)

    def receive(self, *, timeout: float | None = None) -> tuple[bytes, int]:
        """Receive a message and its priority, waiting for one for `timeout` seconds.

        Raises QueueEmptyError, QueueClosedError.
        """
        limit = TimeLimit(timeout)
        with self._receivers:
            while True:
                self._check_open()
                try:
                    return self.native.receive(0)
                except kernel.WOULD_WAIT as error:
                    if limit.is_over:
                        raise QueueEmptyError(f"no message within {timeout} s: {self!r}") from error
                self._wait(self._receivers, select.POLLIN, limit)

    def stop_sending(self) -> None:
        """Send nothing more from here, and wake whoever waits to."""
        self._senders.wake_waiters()

    def wake_waiters(self) -> None:
        """Wake whoever waits here, for good."""
        self._senders.wake_waiters()
        self._receivers.wake_waiters()

    def close(self) -> None:
        """Close it here. The name, and what is in the queue, stay. Idempotent.

        Raises BusyResourceError if a thread does not leave it.
        """
        self.wake_waiters()
        if not (self._senders.close(PATIENCE) and self._receivers.close(PATIENCE)):
            raise BusyResourceError(f"a thread has not left {self!r} yet")
        if not self.closed:
            # Another thread may be closing it as well.
            with contextlib.suppress(*kernel.ABSENT):
                self.native.close()

    def give_back(self) -> Outcome:
        """Close it; the owner's name is unlinked if it still names this very queue.

        Raises RefusedResourceError if that cannot be told, or may not be done.
        """
        is_gone = self.closed
        try:
            # Before it is closed: until then its inode number cannot come round to another.
            is_unlinked = self.is_owner and self._unlink()
        finally:
            self.close()
        return Outcome.ALREADY_GONE if is_gone and not is_unlinked else Outcome.RELEASED

    def _unlink(self) -> bool:
        try:
            named = kernel.open_posix_queue(self.name)
            try:
                if _inode(named) != self._identity:
                    return False
                kernel.unlink_posix_queue(self.name)
            finally:
                named.close()
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise RefusedResourceError(
                f"closed, but its name may not be unlinked: {error}"
            ) from error
        return True

    def _wait(self, interruptible: InterruptibleWait, events: int, limit: TimeLimit) -> None:
        if self.is_owner:
            interruptible.wait(self.native.mqd, events, limit.left())
        elif (
            not interruptible.wait(self.native.mqd, events, limit.left(_LOOK_EVERY))
            and self._is_unlinked
        ):
            raise self._unlinked_error()

    @property
    def _is_unlinked(self) -> bool:
        return os.fstat(self.native.mqd).st_nlink == 0

    def _check_open(self) -> None:
        if self.closed:
            raise self._closed_error()

    def _unlinked_error(self) -> QueueClosedError:
        return QueueClosedError(f"{self!r} was unlinked: its owner has ended")

    def _closed_error(self) -> QueueClosedError:
        return QueueClosedError(f"{self!r} is closed here, or its holder is ending")


def _inode(native: PosixQueueNative) -> tuple[int, int]:
    status = os.fstat(native.mqd)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"the descriptor of POSIX queue {native.name!r} is another file's")
    return status.st_dev, status.st_ino
