"""What the kernel's queues and semaphores have in common: a holder, waiting threads, an end."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from probate import BusyResourceError, Outcome, ProbateError, RefusedResourceError
from probate_ipc import native as kernel
from probate_ipc.handle import PATIENCE, Handle
from probate_ipc.interruptible import InterruptibleWait, TimeLimit

if TYPE_CHECKING:
    from collections.abc import Callable

N = TypeVar("N")
R = TypeVar("R")


class KernelObject(Handle, Generic[N]):
    """A queue or semaphore of the kernel, and whether it is the holder's to remove.

    Its *owner*'s end removes it from the system, a *user*'s never does. A thread that waits in
    it does so through this object, so that it can be woken: the kernel ends nobody's wait when
    one of several holders closes.
    """

    #: What it is, for people.
    sort: ClassVar[str]
    #: What those get who use it when it is closed or removed.
    closed_error: ClassVar[type[ProbateError]]

    def __init__(self, native: N, *, is_owner: bool) -> None:
        #: The object of posix_ipc or sysv_ipc.
        self.native = native
        self.is_owner = is_owner
        self._waits = InterruptibleWait(self._closed_error)

    @property
    def identity(self) -> object:
        """The native object."""
        return self.native

    @property
    def closed(self) -> bool:
        """Whether it is closed here, or removed."""
        return self._is_gone

    def describe(self) -> str:
        """Describe it by its name or key, and by whose it is."""
        return f"{self.sort} {self._name_or_key}{'' if self.is_owner else ', as a user'}"

    def wake_waiters(self) -> None:
        """Wake whoever waits here, for good."""
        self._waits.wake_waiters()

    def close(self) -> None:
        """Use it no more here. It stays in the system, with what is in it. Idempotent.

        Raises BusyResourceError if a thread does not leave it.
        """
        self._await_leaving()
        self._detach()

    def give_back(self) -> Outcome:
        """Remove it as its owner, or leave it as a user.

        Raises BusyResourceError if a thread does not leave it, which then stays as it is, and
        RefusedResourceError if it is closed, but may not be removed.
        """
        is_gone = self._is_gone
        self._await_leaving()
        outcome = Outcome.ALREADY_GONE if is_gone else Outcome.RELEASED
        try:
            # Before it is detached: until then its inode number is nobody else's.
            if self.is_owner and self._remove() is Outcome.RELEASED:
                outcome = Outcome.RELEASED
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise RefusedResourceError(f"closed, but it may not be removed: {error}") from error
        finally:
            self._detach()
        return outcome

    # -- what differs --------------------------------------------------------

    @property
    @abstractmethod
    def _name_or_key(self) -> str: ...

    @property
    @abstractmethod
    def _is_gone(self) -> bool:
        """Whether nothing is left to be closed here."""

    @abstractmethod
    def _remove(self) -> Outcome:
        """Remove this very object; ALREADY_GONE or FileNotFoundError if it is there no more."""

    @abstractmethod
    def _detach(self) -> None:
        """Close it here, when no thread is inside. Idempotent."""

    def _pause(self, waits: InterruptibleWait, events: int, limit: TimeLimit, look: int, /) -> None:
        """Wait for a while after the `look`-th failed attempt, unless the attempt has waited."""

    # -- inside --------------------------------------------------------------

    def _await_leaving(self) -> None:
        self.wake_waiters()
        # To close it under a thread that waits in it might end in a crash (sem_close(3)).
        if not self._waits.close(PATIENCE):
            raise BusyResourceError(f"a thread has not left {self!r} yet")

    def _until(
        self,
        attempt: Callable[[TimeLimit], R],
        timeout: float | None,
        *,
        late: Callable[[], Exception],
        waits: InterruptibleWait | None = None,
        events: int = 0,
    ) -> R:
        """Attempt until it succeeds, for `timeout` seconds; then raise what `late` makes."""
        limit = TimeLimit(timeout)
        waits = self._waits if waits is None else waits
        look = 0
        with waits:
            while True:
                waits.check()
                try:
                    return attempt(limit)
                except kernel.WOULD_WAIT as error:
                    if limit.is_over:
                        raise late() from error
                except kernel.ABSENT as error:
                    raise self._closed_error() from error
                self._pause(waits, events, limit, look)
                look += 1

    def _closed_error(self) -> ProbateError:
        return self.closed_error(f"{self!r} is closed or removed, or its holder is ending")
