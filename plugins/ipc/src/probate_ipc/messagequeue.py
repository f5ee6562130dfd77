"""Message queues of the kernel: POSIX (mq_overview(7)) and System V (msgop(2))."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
from contextlib import contextmanager
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, final

import posix_ipc
import sysv_ipc

from probate import BusyResourceError, Outcome
from probate.journal import ipc_namespace, queue_handle
from probate.system import OwnedDescriptor, built, checked_int
from probate_ipc import limits, sysv
from probate_ipc import native as kernel
from probate_ipc.errors import (
    QueueClosedError,
    QueueEmptyError,
    QueueFullError,
    QueueTooLargeError,
)
from probate_ipc.handle import PATIENCE
from probate_ipc.interruptible import InterruptibleWait
from probate_ipc.kernelobject import KernelObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate.journal import SysvSort
    from probate_ipc.interruptible import TimeLimit

N = TypeVar("N", bound="posix_ipc.MessageQueue | sysv_ipc.MessageQueue")

#: Seconds after which a user who waits looks whether the queue still has its name: nothing
#: tells it, in this OS process or another, that the owner has unlinked it.
_LOOK_EVERY: Final = 0.1

#: Seconds between the first two looks at a SysV queue; each pause is twice the one before it, up
#: to 16 ms. The kernel can neither wait for a SysV queue with a timeout, nor end one thread's
#: wait without removing the queue.
_FIRST_PAUSE: Final = 0.0005
_DOUBLINGS: Final = 5


class MessageQueue(KernelObject[N]):
    """A message queue of the kernel, whose senders can be refused before its receivers are."""

    closed_error = QueueClosedError

    def __init__(self, native: N, *, is_owner: bool) -> None:
        super().__init__(native, is_owner=is_owner)
        self._senders = InterruptibleWait(self._closed_error)

    @property
    def current_messages(self) -> int:
        """How many messages there are at this moment. Raises QueueClosedError."""
        try:
            return self.native.current_messages
        except kernel.ABSENT as error:
            raise self._closed_error() from error

    def stop_sending(self) -> None:
        """Send nothing more from here, and wake whoever waits to."""
        self._senders.wake_waiters()

    def wake_waiters(self) -> None:
        """Wake whoever waits here, for good."""
        self._senders.wake_waiters()
        super().wake_waiters()

    def _await_leaving(self) -> None:
        super()._await_leaving()
        if not self._senders.close(PATIENCE):
            raise BusyResourceError(f"a thread has not left {self!r} yet")

    def _send(self, attempt: Callable[[], None], timeout: float | None) -> None:
        self._until(
            lambda _: attempt(),
            timeout,
            late=lambda: QueueFullError(f"no room within {timeout} s: {self!r}"),
            waits=self._senders,
            events=select.POLLOUT,
        )

    def _receive(
        self, attempt: Callable[[], tuple[bytes, int]], timeout: float | None
    ) -> tuple[bytes, int]:
        return self._until(
            lambda _: attempt(),
            timeout,
            late=lambda: QueueEmptyError(f"no message within {timeout} s: {self!r}"),
            events=select.POLLIN,
        )


@final
class PosixQueue(MessageQueue[posix_ipc.MessageQueue]):
    """An open POSIX message queue.

    On Linux its descriptor can be polled, so threads wait for it without being blocked in
    mq_receive, which mq_close would not end. A *user* who waits gets QueueClosedError soon after
    the owner has unlinked the queue; what others do by mq_receive alone the kernel never ends.
    """

    sort = "POSIX queue"

    def __init__(self, native: posix_ipc.MessageQueue, *, is_owner: bool) -> None:
        super().__init__(native, is_owner=is_owner)
        #: Its name, which begins with a slash.
        self.name = native.name
        #: How many messages it holds at most.
        self.max_messages = native.max_messages
        #: How many bytes a message has at most.
        self.max_message_size = native.max_message_size
        self.reserved = self.max_messages * self.max_message_size if is_owner else 0
        #: Device and inode. The number is nobody else's for as long as the queue is open.
        self._inode = _inode(native)
        self._descriptor = OwnedDescriptor(native.mqd, lambda: native.mqd)

    @classmethod
    def create(cls, name: str, mode: int, max_messages: int, max_message_size: int) -> PosixQueue:
        """Create a queue (mq_open(3)). Raises OSError, QueueTooLargeError among them."""
        sizes = max_messages, max_message_size
        return built(
            partial(posix_ipc.MessageQueue, name, posix_ipc.O_CREX, mode, *sizes),
            partial(cls, is_owner=True),
            kernel.unlink_and_close,
            _creating(name, *sizes),
        )

    @classmethod
    def open(cls, name: str) -> PosixQueue:
        """Open a queue as a user (mq_open(3)). Raises OSError."""
        return cls(_open(name), is_owner=False)

    @property
    def number(self) -> int:
        """Its descriptor number, while it is its own."""
        return -1 if self._is_gone else self.native.mqd

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """Its number."""
        return (self._descriptor,)

    def fileno(self) -> int:
        """Return its descriptor, to be polled; -1 when closed."""
        return self.native.mqd

    def send(self, message: bytes, *, priority: int = 0, timeout: float | None = None) -> None:
        """Send a message, waiting for room for `timeout` seconds; None waits for ever.

        The highest priority, 0 to 32767, is received first (mq_send(3)). Raises QueueFullError,
        QueueClosedError, ValueError for a message that is too long.
        """
        priority = checked_int("priority", priority, least=0, most=posix_ipc.QUEUE_PRIORITY_MAX)

        def attempt() -> None:
            self._check_linked()
            # Never waits in there: a timeout of 0 is one look.
            self.native.send(message, 0, priority)

        self._send(attempt, timeout)

    def receive(self, *, timeout: float | None = None) -> tuple[bytes, int]:
        """Receive a message and its priority, waiting for one for `timeout` seconds.

        Raises QueueEmptyError, QueueClosedError.
        """
        return self._receive(lambda: self.native.receive(0), timeout)

    def lasting_identity(self) -> dict[str, Any]:
        """Return what tells it from a later one of its name when this OS process is dead."""
        return {
            "handle": queue_handle(self.native.mqd),
            "uid": os.fstat(self.native.mqd).st_uid,
            "ipc_namespace": ipc_namespace(),
        }

    @property
    def _name_or_key(self) -> str:
        return repr(self.name)

    @property
    def _is_gone(self) -> bool:
        """Closed, or its number is another's by now."""
        if self.native.mqd == -1:
            return True
        try:
            return _inode(self.native) != self._inode
        except (OSError, ValueError):
            return True

    def _remove(self) -> Outcome:
        named = _open(self.name)
        try:
            if _inode(named) != self._inode:
                return Outcome.ALREADY_GONE
            with kernel.looking_up(self.describe()):
                named.unlink()
        finally:
            named.close()
        return Outcome.RELEASED

    def _detach(self) -> None:
        # Another's number is left alone; nor does posix_ipc touch it when it is collected.
        if not self._is_gone:
            # Another thread may be closing it as well.
            with contextlib.suppress(*kernel.ABSENT):
                self.native.close()

    def _pause(
        self, waits: InterruptibleWait, events: int, limit: TimeLimit, _look: int, /
    ) -> None:
        longest = None if self.is_owner else _LOOK_EVERY
        if not waits.wait(self.native.mqd, events, limit.left(longest)):
            self._check_linked()

    def _check_linked(self) -> None:
        if self._is_gone:
            raise self._closed_error()
        if not self.is_owner and os.fstat(self.native.mqd).st_nlink == 0:
            raise QueueClosedError(f"{self!r} was unlinked: its owner has ended")


@final
class SysvQueue(MessageQueue[sysv_ipc.MessageQueue], sysv.SysvObject[sysv_ipc.MessageQueue]):
    """A SysV message queue. A wait looks at it every 16 ms, sooner at first."""

    sort = "SysV queue"
    table: ClassVar[SysvSort] = "msg"

    def __init__(self, native: sysv_ipc.MessageQueue, *, is_owner: bool) -> None:
        super().__init__(native, is_owner=is_owner)
        # msg_qbytes of msgctl(2).
        self.reserved = native.max_size if is_owner else 0

    @classmethod
    def create(cls, key: int, mode: int, *, is_random: bool) -> SysvQueue:
        """Create a queue (msgget(2)); of a random key, errors do not tell. Raises OSError."""
        longest = limits.setting("kernel.msgmax")
        shown = sysv.key_shown(key, is_random=is_random)
        return built(
            partial(sysv_ipc.MessageQueue, key, sysv_ipc.IPC_CREX, mode, longest),
            partial(cls, is_owner=True),
            methodcaller("remove"),
            kernel.creating(f"SysV queue {shown}", limits.SYSV_QUEUE),
        )

    @classmethod
    def open(cls, key: int) -> SysvQueue:
        """Open a queue as a user (msgget(2)). Raises OSError."""
        longest = limits.setting("kernel.msgmax")
        with kernel.looking_up(f"SysV queue {key:#x}"):
            return cls(sysv_ipc.MessageQueue(key, max_message_size=longest), is_owner=False)

    def send(self, message: bytes, *, type: int = 1, timeout: float | None = None) -> None:  # noqa: A002  as msgsnd(2) has it
        """Send a message of a positive type, waiting for room for `timeout` seconds.

        Raises QueueFullError, QueueClosedError, ValueError for a message that is too long.
        """
        number = checked_int("type", type, least=1)

        def attempt() -> None:
            try:
                self.native.send(message, False, type=number)
            except OSError as error:
                # Sending to a removed id fails with EINVAL, as much else does (msgsnd(2)).
                if error.errno in {errno.EINVAL, errno.EIDRM} and not self._is_there():
                    raise self._closed_error() from error
                raise

        self._send(attempt, timeout)

    def receive(self, *, type: int = 0, timeout: float | None = None) -> tuple[bytes, int]:  # noqa: A002  as msgrcv(2) has it
        """Receive a message and its type, waiting for one for `timeout` seconds.

        `type` 0 is any, a positive one is that, a negative one the lowest up to its absolute
        value (msgrcv(2)). Raises QueueEmptyError, QueueClosedError.
        """
        number = checked_int("type", type)
        return self._receive(lambda: self.native.receive(False, type=number), timeout)

    def _pause(
        self, waits: InterruptibleWait, _events: int, limit: TimeLimit, look: int, /
    ) -> None:
        waits.wait(-1, 0, limit.left(_FIRST_PAUSE * 2 ** min(look, _DOUBLINGS)))


@contextmanager
def _creating(name: str, max_messages: int, max_message_size: int) -> Iterator[None]:
    with kernel.creating(f"POSIX queue {name!r}", limits.POSIX_QUEUE):
        try:
            yield
        except ValueError as error:
            raise QueueTooLargeError(max_messages, max_message_size) from error


def _open(name: str) -> posix_ipc.MessageQueue:
    with kernel.looking_up(f"POSIX queue {name!r}"):
        return posix_ipc.MessageQueue(name)


def _inode(native: posix_ipc.MessageQueue) -> tuple[int, int]:
    status = os.fstat(native.mqd)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"the descriptor of POSIX queue {native.name!r} is another file's")
    return status.st_dev, status.st_ino
