"""System V message queues (msgop(2))."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, final

from probate import BusyResourceError, Outcome
from probate_ipc import native as kernel
from probate_ipc import sysv
from probate_ipc.errors import QueueClosedError, QueueEmptyError, QueueFullError
from probate_ipc.handle import PATIENCE
from probate_ipc.interruptible import InterruptibleWait, TimeLimit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate_ipc.native import SysvQueueNative

#: Seconds between two looks at a queue, from the first to the last. The kernel can neither wait
#: for a SysV queue with a timeout, nor end one thread's wait without removing the queue.
_FIRST_PAUSE: Final = 0.0005
_LAST_PAUSE: Final = 0.016


@final
class SysvQueue:
    """A SysV message queue, and whether it is the holder's to remove.

    Its removal wakes whoever waits for it, in any OS process, with EIDRM; here that is
    QueueClosedError. A wait looks at the queue every 16 ms, sooner at first.
    """

    __slots__ = ("_receivers", "_senders", "identification", "is_detached", "is_owner", "native")

    def __init__(self, native: SysvQueueNative, *, is_owner: bool) -> None:
        #: The `sysv_ipc.MessageQueue`.
        self.native = native
        self.is_owner = is_owner
        #: Its id, and when it was made.
        self.identification = sysv.SysvIdentity(native, "msg")
        self.is_detached = False
        self._senders = InterruptibleWait(self._closed_error)
        self._receivers = InterruptibleWait(self._closed_error)

    def __repr__(self) -> str:
        return f"<SysvQueue {self.describe()}>"

    @property
    def id(self) -> int:
        """The kernel's id of it."""
        return self.native.id

    @property
    def key(self) -> int:
        """Its key, by which others open it."""
        return self.native.key

    @property
    def current_messages(self) -> int:
        """How many messages there are. Raises QueueClosedError if it was removed."""
        try:
            return self.native.current_messages
        except kernel.ABSENT as error:
            raise self._removed_error() from error

    @property
    def closed(self) -> bool:
        """Whether it is closed here, or removed."""
        return self.is_detached or self._is_removed

    @property
    def identity(self) -> object:
        """The native object."""
        return self.native

    @property
    def reserved(self) -> int:
        """Bytes that its messages may take up (msg_qbytes); none of a user's."""
        return self.native.max_size if self.is_owner else 0

    def describe(self) -> str:
        """Its key, its id, and whose it is."""
        return f"SysV queue {self.key:#x}, id {self.id}{'' if self.is_owner else ', as a user'}"

    def send(self, message: bytes, *, type: int = 1, timeout: float | None = None) -> None:  # noqa: A002  as msgsnd(2) has it
        """Send a message of a positive type, waiting for room for `timeout` seconds.

        Raises QueueFullError, QueueClosedError, ValueError for a message that is too long.
        """
        if _checked_type(type) < 1:
            raise ValueError(f"the type of a message is positive, got {type}")
        with self._senders:
            for _ in self._looks(self._senders, timeout):
                try:
                    return self.native.send(message, False, type)
                except kernel.WOULD_WAIT:
                    continue
                except kernel.ABSENT as error:
                    raise self._removed_error() from error
                except OSError as error:
                    # Sending to a removed id fails with EINVAL, as much else does (msgsnd(2)).
                    if error.errno in {errno.EINVAL, errno.EIDRM} and self._is_removed:
                        raise self._removed_error() from error
                    raise
        raise QueueFullError(f"no room within {timeout} s: {self!r}")

    def receive(self, *, type: int = 0, timeout: float | None = None) -> tuple[bytes, int]:  # noqa: A002  as msgrcv(2) has it
        """Receive a message and its type, waiting for one for `timeout` seconds.

        `type` 0 is any, a positive one is that, a negative one the lowest up to its absolute
        value (msgrcv(2)). Raises QueueEmptyError, QueueClosedError.
        """
        _checked_type(type)
        with self._receivers:
            for _ in self._looks(self._receivers, timeout):
                try:
                    return self.native.receive(False, type)
                except kernel.WOULD_WAIT:
                    continue
                except kernel.ABSENT as error:
                    raise self._removed_error() from error
        raise QueueEmptyError(f"no message within {timeout} s: {self!r}")

    def stop_sending(self) -> None:
        """Send nothing more from here, and wake whoever waits to."""
        self._senders.wake_waiters()

    def wake_waiters(self) -> None:
        """Wake whoever waits here, for good."""
        self._senders.wake_waiters()
        self._receivers.wake_waiters()

    def close(self) -> None:
        """Use it no more here. The queue, and what is in it, stays. Idempotent.

        Raises BusyResourceError if a thread does not leave it.
        """
        self.wake_waiters()
        if not (self._senders.close(PATIENCE) and self._receivers.close(PATIENCE)):
            raise BusyResourceError(f"a thread has not left {self!r} yet")
        self.is_detached = True

    def give_back(self) -> Outcome:
        """Remove it as its owner, leave it as a user."""
        is_gone = self.closed
        if self.is_owner:
            outcome = sysv.remove(self.identification, self.native)
        else:
            outcome = Outcome.ALREADY_GONE if is_gone else Outcome.RELEASED
        self.close()
        return outcome

    def _looks(self, interruptible: InterruptibleWait, timeout: float | None) -> Iterator[None]:
        """Yield for each look at the queue, until the time is up."""
        limit = TimeLimit(timeout)
        pause = _FIRST_PAUSE
        while True:
            interruptible.check()
            yield
            if limit.is_over:
                return
            interruptible.wait(-1, 0, limit.left(pause))
            pause = min(pause * 2, _LAST_PAUSE)

    @property
    def _is_removed(self) -> bool:
        try:
            return not self.identification.is_same(self.native)
        except kernel.ABSENT:
            return True

    def _removed_error(self) -> QueueClosedError:
        return QueueClosedError(f"{self!r} was removed (EIDRM): its owner has ended")

    def _closed_error(self) -> QueueClosedError:
        return QueueClosedError(f"{self!r} is closed here, or its holder is ending")


def _checked_type(number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"the type of a message is an int, got {number!r}")
    return number
