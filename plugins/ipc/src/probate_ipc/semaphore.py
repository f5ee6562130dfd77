"""Semaphores of both sorts (sem_overview(7), semop(2))."""

from __future__ import annotations

import contextlib
import errno
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from probate import BusyResourceError, Outcome, RefusedResourceError
from probate_ipc import native as kernel
from probate_ipc import semtimedop, sysv
from probate_ipc.errors import SemaphoreClosedError
from probate_ipc.handle import PATIENCE
from probate_ipc.interruptible import InterruptibleWait, TimeLimit

if TYPE_CHECKING:
    from types import TracebackType

    from probate_ipc.native import PosixSemaphoreNative, SysvSemaphoreNative

#: Seconds that a thread waits in the kernel at a time. Nothing but a post wakes one thread there,
#: and a post would be a lie: it would let somebody in.
_SLICE: Final = 0.05

#: Where glibc keeps POSIX semaphores (sem_overview(7)).
_FOLDER: Final = "/dev/shm/sem."  # noqa: S108  the C library's choice, not ours


class _Semaphore(ABC):
    """A counting semaphore, and whether it is the holder's to remove. A context manager.

    With `undo`, what was acquired through this handle and not released is released when the
    handle's holder ends, as by SEM_UNDO: nobody waits for ever for a permit of the dead. Without
    it a permit stays taken, as it must where one side only acquires and the other only releases.
    """

    __slots__ = ("_held", "_interruptible", "_lock", "is_owner", "undo")

    reserved = 0

    def __init__(self, *, is_owner: bool, undo: bool) -> None:
        self.is_owner = is_owner
        self.undo = undo
        self._interruptible = InterruptibleWait(self._closed_error)
        self._lock = threading.Lock()
        #: Permits to undo.
        self._held = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.describe()}>"

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

    def acquire(self, *, timeout: float | None = None) -> bool:
        """Take a permit, waiting for one for `timeout` seconds; False if none came in time.

        None waits for ever. Raises SemaphoreClosedError when it is closed or removed.
        """
        limit = TimeLimit(timeout)
        with self._interruptible:
            while True:
                self._interruptible.check()
                self._check_open()
                try:
                    is_taken = self._take(limit.left(_SLICE) or 0)
                except kernel.ABSENT as error:
                    raise self._closed_error() from error
                if is_taken:
                    if self.undo:
                        with self._lock:
                            self._held += 1
                    return True
                if limit.is_over:
                    return False

    def release(self) -> None:
        """Give a permit. Raises SemaphoreClosedError when it is closed or removed."""
        try:
            self._check_open()
            self._give()
        except kernel.ABSENT as error:
            raise self._closed_error() from error
        if self.undo:
            with self._lock:
                self._held = max(0, self._held - 1)

    def stop_sending(self) -> None:  # noqa: B027  not abstract: there is nothing to do
        """Nothing: its holder may have permits to give back until the end."""

    def wake_waiters(self) -> None:
        """Wake whoever waits here, for good."""
        self._interruptible.wake_waiters()

    def close(self) -> None:
        """Use it no more here; `undo` takes place, and the semaphore stays. Idempotent.

        Raises BusyResourceError if a thread does not leave it.
        """
        # To close it under a thread that waits in it would end in a crash (sem_close(3)).
        if not self._interruptible.close(PATIENCE):
            raise BusyResourceError(f"a thread has not left {self!r} yet")
        with self._lock:
            held, self._held = self._held, 0
        with contextlib.suppress(*kernel.ABSENT):
            for _ in range(held):
                self._give()
        self._detach()

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether it is closed here, or removed."""

    @property
    @abstractmethod
    def value(self) -> int:
        """Permits to be had at this moment. Raises SemaphoreClosedError."""

    @abstractmethod
    def describe(self) -> str:
        """Which one, and whose it is."""

    @abstractmethod
    def _take(self, timeout: float) -> bool: ...

    @abstractmethod
    def _give(self) -> None: ...

    @abstractmethod
    def _detach(self) -> None: ...

    def _check_open(self) -> None:
        if self.closed:
            raise self._closed_error()

    def _closed_error(self) -> SemaphoreClosedError:
        return SemaphoreClosedError(f"{self!r} is closed or removed, or its holder is ending")


@final
class SysvSemaphore(_Semaphore):
    """A SysV semaphore. Its removal wakes whoever waits for it, in any OS process (EIDRM)."""

    __slots__ = ("identification", "is_detached", "native")

    def __init__(
        self, native: SysvSemaphoreNative, *, is_owner: bool, undo: bool | None = None
    ) -> None:
        super().__init__(is_owner=is_owner, undo=native.undo if undo is None else undo)
        #: The `sysv_ipc.Semaphore`.
        self.native = native
        # The kernel undoes it too, should this OS process die.
        native.undo = self.undo
        #: Its id, and when it was made.
        self.identification = sysv.SysvIdentity(native, "sem")
        self.is_detached = False

    @property
    def id(self) -> int:
        """The kernel's id of it."""
        return self.native.id

    @property
    def key(self) -> int:
        """Its key, by which others open it."""
        return self.native.key

    @property
    def identity(self) -> object:
        """The native object."""
        return self.native

    @property
    def closed(self) -> bool:
        """Whether it is closed here, or removed."""
        if self.is_detached:
            return True
        try:
            return not self.identification.is_same(self.native)
        except kernel.ABSENT:
            return True

    @property
    def value(self) -> int:
        """Permits to be had at this moment. Raises SemaphoreClosedError."""
        try:
            return self.native.value
        except kernel.ABSENT as error:
            raise self._closed_error() from error

    def describe(self) -> str:
        """Its key, its id, and whose it is."""
        whose = "" if self.is_owner else ", as a user"
        return f"SysV semaphore {self.key:#x}, id {self.id}{whose}"

    def give_back(self) -> Outcome:
        """Remove it as its owner, leave it as a user."""
        is_gone = self.closed
        if self.is_owner:
            outcome = sysv.remove(self.identification, self.native)
        else:
            outcome = Outcome.ALREADY_GONE if is_gone else Outcome.RELEASED
        self.close()
        return outcome

    def _take(self, timeout: float) -> bool:
        try:
            return semtimedop.take(self.native.id, timeout, undo=self.undo)
        except OSError as error:
            if error.errno in {errno.EIDRM, errno.EINVAL}:
                raise self._closed_error() from error
            raise

    def _give(self) -> None:
        self.native.release()

    def _detach(self) -> None:
        self.is_detached = True


@final
class PosixSemaphore(_Semaphore):
    """A named POSIX semaphore.

    A *user* who waits gets SemaphoreClosedError soon after the owner has unlinked it. Whoever
    waits by sem_wait alone, in another OS process, the kernel never wakes: for such peers use a
    SysV semaphore.
    """

    __slots__ = ("_inode", "_is_closed", "native")

    def __init__(self, native: PosixSemaphoreNative, *, is_owner: bool, undo: bool = False) -> None:
        super().__init__(is_owner=is_owner, undo=undo)
        #: The `posix_ipc.Semaphore`.
        self.native = native
        self._is_closed = False
        #: Device and inode of its file, which is mapped, and nobody else's, while it is open.
        self._inode = _inode(native.name)

    @property
    def name(self) -> str:
        """Its name, which begins with a slash."""
        return self.native.name

    @property
    def identity(self) -> object:
        """The native object."""
        return self.native

    @property
    def closed(self) -> bool:
        """Whether it is closed here, or unlinked by its owner, if that is another."""
        return self._is_natively_closed or not (self.is_owner or self._has_name)

    @property
    def value(self) -> int:
        """Permits to be had at this moment. Raises SemaphoreClosedError."""
        try:
            return self.native.value
        except kernel.ABSENT as error:
            raise self._closed_error() from error

    def describe(self) -> str:
        """Its name, and whose it is."""
        return f"POSIX semaphore {self.name!r}{'' if self.is_owner else ', as a user'}"

    def give_back(self) -> Outcome:
        """Close it; the owner's name is unlinked if it still names this very semaphore.

        Raises RefusedResourceError if it may not be unlinked.
        """
        is_gone = self._is_natively_closed
        try:
            # Before it is closed: until then its inode number cannot come round to another.
            is_unlinked = self.is_owner and self._unlink()
        finally:
            self.close()
        return Outcome.ALREADY_GONE if is_gone and not is_unlinked else Outcome.RELEASED

    def _unlink(self) -> bool:
        if not self._has_name:
            return False
        try:
            kernel.unlink_posix_semaphore(self.name)
        except FileNotFoundError:
            return False
        except PermissionError as error:
            raise RefusedResourceError(
                f"closed, but its name may not be unlinked: {error}"
            ) from error
        return True

    @property
    def _has_name(self) -> bool:
        """Whether its name is still this semaphore's."""
        return self._inode is not None and _inode(self.name) == self._inode

    @property
    def _is_natively_closed(self) -> bool:
        try:
            _ = self.native.value
        except kernel.ABSENT:
            return True
        return False

    def _take(self, timeout: float) -> bool:
        try:
            self.native.acquire(timeout)
        except kernel.WOULD_WAIT:
            return False
        return True

    def _give(self) -> None:
        self.native.release()

    def _detach(self) -> None:
        with contextlib.suppress(*kernel.ABSENT):
            self.native.close()


def _inode(name: str) -> tuple[int, int] | None:
    try:
        status = Path(_FOLDER + name.removeprefix("/")).stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
