"""SysV segments, as owner or as user."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from typing import TYPE_CHECKING, final

from probate import BusyResourceError, Outcome, RefusedResourceError
from probate.system import start_time_of
from probate_memory import sysv
from probate_memory.referrers import has_other_referrers, still_in_use
from probate_memory.wiping import zeros_over

if TYPE_CHECKING:
    import sysv_ipc

    from probate import ReleaseError
    from probate.journal import SysvIdentity


@final
class SysvSegment:
    """A `sysv_ipc.SharedMemory`, and whether its owner's end is the segment's.

    The kernel counts who is attached, and a segment is removed with nobody there but us. Raises
    ValueError for a segment that is no more, PermissionError if it cannot be looked at.
    """

    __slots__ = ("_lock", "_origin", "_wipe", "is_owner", "native", "nbytes")

    #: It has no descriptors.
    descriptors = ()

    def __init__(
        self, native: sysv_ipc.SharedMemory, *, is_owner: bool, wipe: bool = False
    ) -> None:
        status = sysv.status_of(native)
        if status is None or not (is_owner or native.attached):
            raise ValueError(f"removed, or attached no more, so it cannot be owned: {native!r}")
        self.native = native
        self.is_owner = is_owner
        #: Bytes that are its owner's; a user holds none.
        self.nbytes = status.size if is_owner else 0
        self._origin = _origin(status)
        self._wipe = wipe
        # Reentrant: a signal handler may terminate the owner while its thread closes this.
        self._lock = threading.RLock()

    def __str__(self) -> str:
        role = "owner" if self.is_owner else "user"
        return f"SysV segment {self.native.id}, {role}"

    def identity(self) -> SysvIdentity:
        """What tells the segment from a later one of its key, for the journal."""
        return sysv.identity_of(self.native)

    def close(self) -> Outcome:
        """Detach; if it is its owner's, wipe it if asked for, and remove it.

        Raises BusyResourceError while a buffer of it is exported, or others are attached to what
        is its owner's: with nothing changed.
        """
        with self._lock:
            self._look_if_unused(BusyResourceError)
            return self.release(BusyResourceError)

    def release(self, if_used: type[ReleaseError] = RefusedResourceError) -> Outcome:
        """As `close`, but ours is detached in any case, unless it is busy.

        Raises `if_used` then, if others are attached. That nobody is, is asked right before the
        removal, and not in one step with it: who attaches in between has the memory until it
        detaches, for the kernel destroys a segment after the last one (shmctl(2), IPC_RMID).
        """
        with self._lock:
            status = self._look()
            if status is None:
                return Outcome.RELEASED if self._detach() else Outcome.ALREADY_GONE
            if self._wipe and not self._others(status):
                self._clear()
            self._detach()
            if self._look_if_unused(if_used) is not None:
                with contextlib.suppress(FileNotFoundError):
                    sysv.remove(self.native)
            return Outcome.RELEASED

    def unlink(self) -> None:
        """Remove it, and keep it attached until `close`; nobody finds it by its key from then on.

        Raises RefusedResourceError to a mere user, and while others are attached.
        """
        with self._lock:
            if not self.is_owner:
                raise RefusedResourceError(f"{self}: attached only, so it is its owner's to remove")
            if self._look_if_unused(RefusedResourceError) is not None:
                sysv.remove(self.native)

    # -- steps; the lock is held ---------------------------------------------

    def _look(self) -> sysv.Status | None:
        """What there is for the owner to end; None if it is gone, or a successor's, or not ours.

        While it is attached its id is taken. After that ids come round, in some four million
        segments, so who made it and how large it is has to be the same.
        """
        status = sysv.status_of(self.native) if self.is_owner else None
        if status is None or self.native.attached or _origin(status) == self._origin:
            return status
        return None

    def _look_if_unused(self, if_used: type[ReleaseError]) -> sysv.Status | None:
        """As `_look`. Raises `if_used` if others are attached."""
        status = self._look()
        if status is not None and (others := self._others(status)):
            raise if_used(
                f"kept: attached {others} more times; last attached or detached by OS process "
                f"{status.last_pid}, created by {status.creator_pid}; have them detach, then "
                f"remove segment {self.native.id} (ipcrm -m {self.native.id})"
            )
        return status

    def _others(self, status: sysv.Status) -> int:
        return status.attaches - self.native.attached

    def _detach(self) -> bool:
        """Detach; whether it was attached. Raises BusyResourceError if memoryviews look at it."""
        if not self.native.attached:
            return False
        # A look at all objects there are, so only if anybody but us has this one.
        if has_other_referrers(self, "native") and _is_exported(self.native):
            raise still_in_use()
        self.native.detach()
        return True

    def _clear(self) -> None:
        if not self.native.attached:
            self.native.attach()
        for offset, zeros in zeros_over(0, self.native.size):
            self.native.write(zeros, offset)
        self._wipe = False


def has_created(native: sysv_ipc.SharedMemory) -> bool:
    """Whether this OS process created the segment, as far as the kernel tells (shm_cpid).

    A forked child has a pid of its own, and so has not. A creator that died before we began may
    have had our pid, so the segment must not be older than we are.
    """
    # Both in whole seconds; the kernel's idea of the time of boot is rounded, too.
    return native.creator_pid == os.getpid() and native.last_change_time >= _time_of_our_start() - 2


def _time_of_our_start() -> float:
    """When this OS process started, in seconds since the epoch."""
    after_boot = start_time_of(os.getpid()) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - after_boot)


def _origin(status: sysv.Status) -> tuple[int, int, int]:
    return status.creator_pid, status.creator_uid, status.size


def _is_exported(native: sysv_ipc.SharedMemory) -> bool:
    """Whether a memoryview looks at it: sysv_ipc would detach all the same, and it would dangle.

    sysv_ipc counts no exports, so what memoryviews share is looked for by its type. An array on
    the segment itself shows nowhere: it refers to it just as any variable does.
    """
    return any(type(each).__name__ == "managedbuffer" for each in gc.get_referrers(native))
