"""Semaphores of both sorts (sem_overview(7), semop(2))."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from abc import abstractmethod
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar, final

import posix_ipc
import sysv_ipc

from probate import Outcome
from probate.journal import path_identity
from probate.system import built, unlink_if_same, using
from probate_ipc import limits, semfile, semtimedop, sysv
from probate_ipc import native as kernel
from probate_ipc.errors import SemaphoreClosedError
from probate_ipc.kernelobject import KernelObject

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from probate.journal import SysvSort
    from probate_ipc.interruptible import TimeLimit

N = TypeVar("N", bound="posix_ipc.Semaphore | sysv_ipc.Semaphore")

#: Seconds that a thread waits in the kernel at a time. Nothing but a post wakes one thread there,
#: and a post would be a lie: it would let somebody in.
_SLICE: Final = 0.05

#: Where glibc keeps POSIX semaphores (sem_overview(7)).
_FOLDER: Final = "/dev/shm/sem."  # noqa: S108  the C library's choice, not ours


class Semaphore(KernelObject[N]):
    """A counting semaphore. A context manager.

    With `undo`, what was acquired through this handle and not released is released when the
    handle's holder ends, as by SEM_UNDO: nobody waits for ever for a permit of the dead. Without
    it a permit stays taken, as it must where one side only acquires and the other only releases.
    """

    closed_error = SemaphoreClosedError

    def __init__(self, native: N, *, is_owner: bool, undo: bool) -> None:
        super().__init__(native, is_owner=is_owner)
        self.undo = undo
        self._lock = threading.Lock()
        #: Permits to undo.
        self._held = 0

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    @property
    def value(self) -> int:
        """Permits to be had at this moment. Raises SemaphoreClosedError."""
        try:
            return self.native.value
        except kernel.ABSENT as error:
            raise self._closed_error() from error

    def acquire(self, *, timeout: float | None = None) -> bool:
        """Take a permit, waiting for one for `timeout` seconds; False if none came in time.

        None waits for ever. Raises SemaphoreClosedError when it is closed or removed.
        """

        def attempt(limit: TimeLimit) -> None:
            self._check_open()
            self._take(limit.left(_SLICE) or 0)

        try:
            self._until(attempt, timeout, late=TimeoutError)
        except TimeoutError:
            return False
        if self.undo:
            with self._lock:
                self._held += 1
        return True

    def release(self) -> None:
        """Give a permit. Raises SemaphoreClosedError when it is closed or removed."""
        self._check_open()
        try:
            self.native.release()
        except kernel.ABSENT as error:
            raise self._closed_error() from error
        if self.undo:
            with self._lock:
                self._held = max(0, self._held - 1)

    @abstractmethod
    def _take(self, timeout: float) -> None:
        """Take a permit, or raise what is in WOULD_WAIT after `timeout` seconds, or sooner."""

    def _check_open(self) -> None:
        if self.closed:
            raise self._closed_error()

    def _await_leaving(self) -> None:
        super()._await_leaving()
        with self._lock:
            held, self._held = self._held, 0
        with contextlib.suppress(*kernel.ABSENT):
            for _ in range(held):
                self.native.release()


@final
class SysvSemaphore(Semaphore[sysv_ipc.Semaphore], sysv.SysvObject[sysv_ipc.Semaphore]):
    """A SysV semaphore."""

    sort = "SysV semaphore"
    table: ClassVar[SysvSort] = "sem"

    def __init__(
        self, native: sysv_ipc.Semaphore, *, is_owner: bool, undo: bool | None = None
    ) -> None:
        super().__init__(native, is_owner=is_owner, undo=native.undo if undo is None else undo)
        # The kernel undoes it too, should this OS process die.
        native.undo = self.undo

    @classmethod
    def create(
        cls, key: int, mode: int, value: int, *, is_random: bool, undo: bool
    ) -> SysvSemaphore:
        """Create a semaphore (semget(2)); of a random key, errors do not tell. Raises OSError."""
        shown = sysv.key_shown(key, is_random=is_random)
        return built(
            partial(sysv_ipc.Semaphore, key, sysv_ipc.IPC_CREX, mode, value),
            partial(cls, is_owner=True, undo=undo),
            methodcaller("remove"),
            kernel.creating(f"SysV semaphore {shown}", limits.SYSV_SEMAPHORE),
        )

    @classmethod
    def open(cls, key: int, *, undo: bool) -> SysvSemaphore:
        """Open a semaphore as a user (semget(2)). Raises OSError."""
        with kernel.looking_up(f"SysV semaphore {key:#x}"):
            return cls(sysv_ipc.Semaphore(key), is_owner=False, undo=undo)

    def _take(self, timeout: float) -> None:
        semtimedop.take(self.id, timeout, undo=self.undo)


@final
class PosixSemaphore(Semaphore[posix_ipc.Semaphore]):
    """A named POSIX semaphore.

    A *user* who waits gets SemaphoreClosedError soon after the owner has unlinked it. Whoever
    waits by sem_wait alone, in another OS process, the kernel never wakes: for such peers use a
    SysV semaphore.
    """

    sort = "POSIX semaphore"

    def __init__(self, native: posix_ipc.Semaphore, *, is_owner: bool, undo: bool = False) -> None:
        super().__init__(native, is_owner=is_owner, undo=undo)
        #: Its name, which begins with a slash.
        self.name = native.name
        self._path = path_of(self.name)
        #: What its file is, which is mapped, and no other's, while it is open.
        self._status = self._look()

    @classmethod
    def create(
        cls, name: str, mode: int, value: int, *, undo: bool, is_journaled: bool
    ) -> PosixSemaphore:
        """Create a semaphore (sem_open(3)). Raises OSError.

        If it is in a journal, its file has no other name before; that takes longer.
        """
        make: Callable[[], posix_ipc.Semaphore]
        if is_journaled:
            make = partial(semfile.create, name, path_of(name), mode, value)
        else:
            make = partial(posix_ipc.Semaphore, name, posix_ipc.O_CREX, mode, value)
        return built(
            make,
            partial(cls, is_owner=True, undo=undo),
            kernel.unlink_and_close,
            kernel.creating(f"POSIX semaphore {name!r}", limits.POSIX_SEMAPHORE),
        )

    @classmethod
    def open(cls, name: str, *, undo: bool) -> PosixSemaphore:
        """Open a semaphore as a user (sem_open(3)). Raises OSError."""
        with kernel.looking_up(f"POSIX semaphore {name!r}"):
            return cls(posix_ipc.Semaphore(name), is_owner=False, undo=undo)

    @property
    def closed(self) -> bool:
        """Whether it is closed here, or unlinked by its owner, if that is another."""
        return self._is_gone or not (self.is_owner or self.has_name)

    def lasting_identity(self) -> dict[str, Any]:
        """Return what tells it from a later one of its name when this OS process is dead.

        Raises FileNotFoundError if the name is another's, or nobody's, already.
        """

        def look(pin: int) -> dict[str, Any]:
            if self._status is None or not os.path.samestat(os.fstat(pin), self._status):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.name)
            return path_identity(self._path, pin)

        return using(partial(os.open, self._path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW), look)

    @property
    def _name_or_key(self) -> str:
        return repr(self.name)

    @property
    def has_name(self) -> bool:
        """Whether its name is still this semaphore's."""
        found, own = self._look(), self._status
        return found is not None and own is not None and os.path.samestat(found, own)

    @property
    def _is_gone(self) -> bool:
        try:
            _ = self.native.value
        except kernel.ABSENT:
            return True
        return False

    def _remove(self) -> Outcome:
        if self._status is None:
            return Outcome.ALREADY_GONE
        # As sem_unlink(3) does.
        return unlink_if_same(self._path, self._status)

    def _detach(self) -> None:
        with contextlib.suppress(*kernel.ABSENT):
            self.native.close()

    def _take(self, timeout: float) -> None:
        self.native.acquire(timeout)

    def _look(self) -> os.stat_result | None:
        try:
            return os.lstat(self._path)
        except FileNotFoundError:
            return None


def path_of(name: str) -> str:
    """Return where the semaphore of that name is in the file system."""
    return _FOLDER + name.removeprefix("/")
