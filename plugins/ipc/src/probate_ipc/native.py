"""The two C packages, as far as they are used here, with types and with Python's own errors."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import posix_ipc  # type: ignore[import-not-found]  # a C extension without stubs
import sysv_ipc  # type: ignore[import-not-found]  # a C extension without stubs

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What `sysv_ipc` and `posix_ipc` raise for what is not there, or is there already.
ABSENT: Final[tuple[type[Exception], ...]] = (
    posix_ipc.ExistentialError,
    sysv_ipc.ExistentialError,
)
#: What they raise instead of waiting any longer.
WOULD_WAIT: Final[tuple[type[Exception], ...]] = (posix_ipc.BusyError, sysv_ipc.BusyError)
#: What they raise for want of permission.
FORBIDDEN: Final[tuple[type[Exception], ...]] = (
    posix_ipc.PermissionsError,
    sysv_ipc.PermissionsError,
)

#: The largest values of semaphores (sem_overview(7), semctl(2)) and the number of priorities
#: of a POSIX queue (mq_overview(7)).
POSIX_SEMAPHORE_MAX: Final[int] = posix_ipc.SEMAPHORE_VALUE_MAX
SYSV_SEMAPHORE_MAX: Final[int] = sysv_ipc.SEMAPHORE_VALUE_MAX
POSIX_PRIORITIES: Final[int] = posix_ipc.QUEUE_PRIORITY_MAX + 1


class PosixQueueNative(Protocol):
    """A `posix_ipc.MessageQueue`."""

    @property
    def mqd(self) -> int:
        """The descriptor; -1 when closed."""

    @property
    def name(self) -> str:
        """The name it was opened by."""

    @property
    def max_messages(self) -> int:
        """How many messages it holds."""

    @property
    def max_message_size(self) -> int:
        """How many bytes a message has at most."""

    @property
    def current_messages(self) -> int:
        """How many messages are in it."""

    def send(self, message: bytes, timeout: float | None, priority: int) -> None:
        """mq_timedsend(3)."""

    def receive(self, timeout: float | None) -> tuple[bytes, int]:
        """mq_timedreceive(3)."""

    def close(self) -> None:
        """mq_close(3)."""


class PosixSemaphoreNative(Protocol):
    """A `posix_ipc.Semaphore`."""

    @property
    def name(self) -> str:
        """The name it was opened by."""

    @property
    def value(self) -> int:
        """sem_getvalue(3)."""

    def acquire(self, timeout: float | None = None) -> None:
        """sem_timedwait(3)."""

    def release(self) -> None:
        """sem_post(3)."""

    def close(self) -> None:
        """sem_close(3)."""


class _SysvNative(Protocol):
    @property
    def id(self) -> int:
        """The kernel's id."""

    @property
    def key(self) -> int:
        """The key it was opened by."""

    @property
    def cuid(self) -> int:
        """User id of its creator, by IPC_STAT."""

    @property
    def cgid(self) -> int:
        """Group id of its creator, by IPC_STAT."""

    def remove(self) -> None:
        """IPC_RMID."""


class SysvQueueNative(_SysvNative, Protocol):
    """A `sysv_ipc.MessageQueue`."""

    @property
    def current_messages(self) -> int:
        """How many messages are in it, by IPC_STAT."""

    @property
    def max_size(self) -> int:
        """How many bytes it holds (msg_qbytes)."""

    def send(self, message: bytes, block: bool, type: int) -> None:  # noqa: A002  the package's own name
        """msgsnd(2)."""

    def receive(self, block: bool, type: int) -> tuple[bytes, int]:  # noqa: A002  the package's own name
        """msgrcv(2)."""


class SysvSemaphoreNative(_SysvNative, Protocol):
    """A `sysv_ipc.Semaphore`."""

    undo: bool

    @property
    def value(self) -> int:
        """GETVAL."""

    def release(self) -> None:
        """semop(2)."""


def is_posix_queue(resource: object) -> bool:
    """Whether it is a `posix_ipc.MessageQueue`."""
    return isinstance(resource, posix_ipc.MessageQueue)


def is_posix_semaphore(resource: object) -> bool:
    """Whether it is a `posix_ipc.Semaphore`."""
    return isinstance(resource, posix_ipc.Semaphore)


def is_sysv_queue(resource: object) -> bool:
    """Whether it is a `sysv_ipc.MessageQueue`."""
    return isinstance(resource, sysv_ipc.MessageQueue)


def is_sysv_semaphore(resource: object) -> bool:
    """Whether it is a `sysv_ipc.Semaphore`."""
    return isinstance(resource, sysv_ipc.Semaphore)


def create_posix_queue(
    name: str, mode: int, max_messages: int, max_message_size: int
) -> PosixQueueNative:
    """mq_open(3) with O_CREAT and O_EXCL. Raises OSError, ValueError beyond the system's limits."""
    with _as_os_errors(f"POSIX queue {name!r}", absent=errno.EEXIST):
        try:
            native: PosixQueueNative = posix_ipc.MessageQueue(
                name,
                posix_ipc.O_CREX,
                mode=mode,
                max_messages=max_messages,
                max_message_size=max_message_size,
            )
        except ValueError as error:
            raise ValueError(
                f"a POSIX queue of {max_messages} messages of {max_message_size} bytes is more "
                "than the system allows: ask for less, or raise fs.mqueue.msg_max and msgsize_max"
            ) from error
        return native


def open_posix_queue(name: str) -> PosixQueueNative:
    """mq_open(3). Raises OSError."""
    with _as_os_errors(f"POSIX queue {name!r}", absent=errno.ENOENT):
        native: PosixQueueNative = posix_ipc.MessageQueue(name)
        return native


def unlink_posix_queue(name: str) -> None:
    """mq_unlink(3). Raises OSError."""
    with _as_os_errors(f"POSIX queue {name!r}", absent=errno.ENOENT):
        posix_ipc.unlink_message_queue(name)


def create_posix_semaphore(name: str, mode: int, value: int) -> PosixSemaphoreNative:
    """sem_open(3) with O_CREAT and O_EXCL. Raises OSError."""
    with _as_os_errors(f"POSIX semaphore {name!r}", absent=errno.EEXIST):
        native: PosixSemaphoreNative = posix_ipc.Semaphore(
            name, posix_ipc.O_CREX, mode=mode, initial_value=value
        )
        return native


def open_posix_semaphore(name: str) -> PosixSemaphoreNative:
    """sem_open(3). Raises OSError."""
    with _as_os_errors(f"POSIX semaphore {name!r}", absent=errno.ENOENT):
        native: PosixSemaphoreNative = posix_ipc.Semaphore(name)
        return native


def unlink_posix_semaphore(name: str) -> None:
    """sem_unlink(3). Raises OSError."""
    with _as_os_errors(f"POSIX semaphore {name!r}", absent=errno.ENOENT):
        posix_ipc.unlink_semaphore(name)


def create_sysv_queue(key: int | None, mode: int) -> SysvQueueNative:
    """msgget(2) with IPC_CREAT and IPC_EXCL; without a key, under one that is free."""
    with _as_os_errors(f"SysV queue {_shown(key)}", absent=errno.EEXIST):
        native: SysvQueueNative = sysv_ipc.MessageQueue(
            key, sysv_ipc.IPC_CREX, mode=mode, max_message_size=largest_sysv_message()
        )
        return native


def open_sysv_queue(key: int) -> SysvQueueNative:
    """msgget(2). Raises OSError."""
    with _as_os_errors(f"SysV queue {_shown(key)}", absent=errno.ENOENT):
        native: SysvQueueNative = sysv_ipc.MessageQueue(
            key, max_message_size=largest_sysv_message()
        )
        return native


def create_sysv_semaphore(key: int | None, mode: int, value: int) -> SysvSemaphoreNative:
    """semget(2) with IPC_CREAT and IPC_EXCL, one semaphore; without a key, under a free one."""
    with _as_os_errors(f"SysV semaphore {_shown(key)}", absent=errno.EEXIST):
        native: SysvSemaphoreNative = sysv_ipc.Semaphore(
            key, sysv_ipc.IPC_CREX, mode=mode, initial_value=value
        )
        return native


def open_sysv_semaphore(key: int) -> SysvSemaphoreNative:
    """semget(2). Raises OSError."""
    with _as_os_errors(f"SysV semaphore {_shown(key)}", absent=errno.ENOENT):
        native: SysvSemaphoreNative = sysv_ipc.Semaphore(key)
        return native


def largest_sysv_message() -> int:
    """Bytes that a SysV message has at most: MSGMAX (msgsnd(2))."""
    with open("/proc/sys/kernel/msgmax") as file:
        return int(file.read())


def sysv_queue_bytes() -> int:
    """Bytes that a new SysV queue has room for: MSGMNB (msgget(2))."""
    with open("/proc/sys/kernel/msgmnb") as file:
        return int(file.read())


def _shown(key: int | None) -> str:
    return "under a free key" if key is None else f"{key:#x}"


@contextmanager
def _as_os_errors(what: str, *, absent: int) -> Iterator[None]:
    """Raise the OSError that the system call failed with, which the packages hide."""
    try:
        yield
    except ABSENT as error:
        raise OSError(absent, f"{what}: {os.strerror(absent)}") from error
    except FORBIDDEN as error:
        raise PermissionError(errno.EACCES, f"{what}: {os.strerror(errno.EACCES)}") from error
