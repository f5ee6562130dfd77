"""What each owner of one kind holds, safe from any thread.

`Holdings` is a dict from id to resource, in the order of acquisition, so that `popitem` finds the
newest and takes it out in one atomic step. An acquisition takes no lock: it puts the resource in,
and only then checks whether its owner may still own and whether the holdings are being dropped.
Whoever drops holdings marks them first, and only then checks whether they are empty. So one of the
two always sees the other. A cleanup that overtakes an acquisition has either released the resource
already, or leaves it to be taken back out.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, final

from probate.errors import ResourceLimitExceeded
from probate.outcome import ResourceId
from probate.system.lazy import lazy_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from probate import models
    from probate.models import KindLimits
    from probate.ownership.admission import Admission
else:
    models = lazy_module("probate.models")

T = TypeVar("T")

#: Takes the place of a reservation where there are no limits, and of what is marked nowhere.
_NO_RESERVATION: Final[contextlib.AbstractContextManager[None]] = contextlib.nullcontext()

#: Owners that share a lock delay each other by some nanoseconds, if at all.
_LOCKS: Final = 16


@final
class Holdings(dict[ResourceId, T]):
    """One owner's resources, oldest first. Most are few, and many owners come and go."""

    __slots__ = ("is_dropped", "is_moving", "lock", "nbytes", "pending", "sizes")

    #: Guards what is below, and the removal from `HoldingsByOwner`. Shared with other owners.
    lock: threading.RLock
    #: Whether they have been removed from `HoldingsByOwner`, or are just about to be.
    is_dropped: bool
    #: Whether a resource is being transferred to another owner, and may have to come back.
    is_moving: bool
    #: Acquisitions under way that count against a limit already.
    pending: int
    #: Bytes of all resources, and of those acquisitions.
    nbytes: int
    #: Bytes of each resource that has any; None before the first.
    sizes: dict[ResourceId, int] | None

    def put(self, resource_id: ResourceId, resource: T, nbytes: int) -> None:
        """Put in a resource of so many bytes, which are counted before it can be seen."""
        if nbytes:
            with self.lock:
                if self.sizes is None:
                    self.sizes = {}
                self.sizes[resource_id] = nbytes
                self.nbytes += nbytes
        self[resource_id] = resource

    def size_of(self, resource_id: ResourceId) -> int:
        """Return the bytes of a resource, 0 if it is not here."""
        return self.sizes.get(resource_id, 0) if self.sizes else 0

    def take_sizes(self, resource_ids: Iterable[ResourceId]) -> int:
        """Stop counting the bytes of resources that were taken out; return their sum."""
        if not self.sizes:
            return 0
        with self.lock:
            nbytes = sum(map(self.sizes.pop, resource_ids, repeat(0)))
            self.nbytes -= nbytes
        return nbytes

    def usage(
        self, kind: str, describe: Callable[[T], str], sites: Mapping[ResourceId, str]
    ) -> models.ResourceUsage:
        """Describe each resource, oldest first."""
        infos = tuple(
            models.ResourceInfo(
                id=resource_id,
                description=describe(resource),
                nbytes=self.size_of(resource_id),
                acquired_at=sites.get(resource_id),
            )
            for resource_id, resource in list(self.items())
        )
        total = sum(info.nbytes for info in infos)
        return models.ResourceUsage(kind=kind, count=len(infos), nbytes=total, resources=infos)


@final
class Reservation:
    """Counts an acquisition under way against its owner's limits.

    A context manager: leaving it gives the reservation up, unless the resource has replaced it.
    """

    __slots__ = ("_by_owner", "_holdings", "_is_open", "_nbytes", "_pid")

    def __init__(
        self, by_owner: HoldingsByOwner[Any], pid: int, holdings: Holdings[Any], nbytes: int
    ) -> None:
        self._by_owner = by_owner
        self._pid = pid
        # Never dropped while an acquisition is pending, so this is where the resource will be.
        self._holdings = holdings
        self._nbytes = nbytes
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._holdings.lock:
            self.end()
        self._by_owner.drop_if_empty(self._pid, self._holdings)

    def end(self) -> None:
        """Count it no longer. The holdings' lock is held by the caller."""
        if self._is_open:
            self._is_open = False
            self._holdings.pending -= 1
            self._holdings.nbytes -= self._nbytes


@final
class HoldingsByOwner(Generic[T]):
    """Keeps the holdings of all owners of one table. Resources are never None."""

    __slots__ = ("_by_pid", "_idle", "_locks", "_transfer_lock", "admission", "get")

    def __init__(self) -> None:
        self._by_pid: dict[int, Holdings[T]] = {}
        #: Whose holdings may be empty and are kept: one, two while one is being dropped.
        self._idle: deque[int] = deque()
        #: The holdings of a pid, None if it has none; the dict's own method.
        self.get: Callable[[int], Holdings[T] | None] = self._by_pid.get
        # Reentrant, as all locks here: a signal handler may terminate processes while its thread
        # holds one. Shared by owners, since most come and go too quickly for a lock of their own.
        self._locks = tuple(threading.RLock() for _ in range(_LOCKS))
        self._transfer_lock = threading.RLock()
        #: Decides who may own; None lets everybody.
        self.admission: Admission | None = None

    def pids(self) -> list[int]:
        """Return all that own something, in no particular order."""
        return [
            pid for pid, holdings in list(self._by_pid.items()) if holdings or holdings.is_moving
        ]

    def size_of(self, pid: int, resource_id: ResourceId) -> int:
        """Return the bytes of a resource; 0 if `pid` does not own it."""
        holdings = self.get(pid)
        return 0 if holdings is None else holdings.size_of(resource_id)

    def owner_of(self, resource_id: ResourceId) -> int | None:
        """Return who owns an id, None if nobody does. O(owners): for error messages."""
        for pid, holdings in list(self._by_pid.items()):
            if resource_id in holdings:
                return pid
        return None

    def get_or_create(self, pid: int) -> Holdings[T]:
        """Return the holdings of `pid`, set up if it has none."""
        holdings = self.get(pid)
        return self.create(pid) if holdings is None else holdings

    def create(self, pid: int) -> Holdings[T]:
        """Set up the holdings of `pid`, which has none, unless another thread was quicker."""
        holdings: Holdings[T] = Holdings()
        holdings.lock = self._locks[pid % _LOCKS]
        holdings.is_dropped = holdings.is_moving = False
        holdings.pending = holdings.nbytes = 0
        holdings.sizes = None
        return self._by_pid.setdefault(pid, holdings)

    def insert(
        self,
        pid: int,
        resource_id: ResourceId,
        resource: T,
        nbytes: int,
        reservation: Reservation | None = None,
    ) -> bool:
        """Put a resource in; return False if a cleanup has taken and released it by now.

        Raises what `Admission.check` raises, with the resource taken back out.
        """
        while True:
            holdings = self.get_or_create(pid)
            if reservation is None:
                holdings.put(resource_id, resource, nbytes)
            else:
                # It replaces its reservation in one step, so that limits count neither both nor
                # none of the two.
                with holdings.lock:
                    reservation.end()
                    holdings.put(resource_id, resource, nbytes)
            stays = self.confirm(pid, holdings, resource_id)
            if stays is not None:
                return stays

    def confirm(self, pid: int, holdings: Holdings[T], resource_id: ResourceId) -> bool | None:
        """Check whether what was just put in can stay.

        Returns False if a cleanup has taken it, None if it was taken back out and is to be put in
        once more. Raises what `Admission.check` raises, with the resource taken back out.
        """
        refusal: Exception | None = None
        if self.admission is not None:
            # Only now: a termination that began before is seen here, and one that begins
            # later finds the resource in its place.
            try:
                self.admission.check(pid)
            except Exception as error:
                refusal = error
        if refusal is None and not holdings.is_dropped:
            return True
        if holdings.pop(resource_id, None) is None:
            return False
        holdings.take_sizes((resource_id,))
        # Whoever is dropping the holdings has finished when this returns.
        self.drop_if_empty(pid, holdings)
        if refusal is not None:
            raise refusal
        return None

    def withdraw(self, pid: int, resource_id: ResourceId) -> None:
        """Take a resource back out, if it is there, whose owner is not to have it after all."""
        holdings = self.get(pid)
        if holdings is not None and holdings.pop(resource_id, None) is not None:
            holdings.take_sizes((resource_id,))
            self.drop_if_empty(pid, holdings)

    def move(
        self, pid: int, resource_id: ResourceId, to: int, reservation: Reservation | None = None
    ) -> bool:
        """Make `to` the owner of a resource; return False if `pid` does not have it.

        Raises what `insert` raises; the resource is back in its place then.
        """
        holdings = self.get(pid)
        if holdings is None:
            return False
        with self._transfer_lock:
            # From here on the holdings count as not empty and are not dropped, so that a cleanup
            # of `pid` waits, and finds the resource again should `to` be refused.
            with holdings.lock:
                holdings.is_moving = True
            try:
                resource = holdings.pop(resource_id, None)
                if resource is None:
                    return False
                try:
                    nbytes = holdings.size_of(resource_id)
                    self.insert(to, resource_id, resource, nbytes, reservation)
                except BaseException:
                    holdings[resource_id] = resource
                    raise
                holdings.take_sizes((resource_id,))
            finally:
                with holdings.lock:
                    holdings.is_moving = False
        self.drop_if_empty(pid, holdings)
        return True

    def drop_if_empty(self, pid: int, holdings: Holdings[T]) -> bool:
        """Remove the holdings of `pid` if they are empty; return False if they are not."""
        while True:
            lock = holdings.lock
            is_decided = False
            try:
                # Not by `with`, which takes longer than all the rest.
                lock.acquire()
                if not holdings.is_moving:
                    is_decided = True
                    if not holdings.pending:
                        # Marked before looking, while an acquisition puts in before it looks.
                        holdings.is_dropped = True
                        if holdings:
                            holdings.is_dropped = self.get(pid) is not holdings
                        elif self.get(pid) is holdings:
                            del self._by_pid[pid]
                is_empty = not holdings
                lock.release()
            except BaseException:
                # An exception from outside; perhaps before it was acquired, or after its release.
                with contextlib.suppress(RuntimeError):
                    lock.release()
                raise
            if is_decided:
                return is_empty
            with self._transfer_lock:
                # The transfer is over now; what it left is seen at the next look.
                pass

    def rest(self, pid: int) -> None:
        """Keep the holdings of `pid`, which are empty, until another's are.

        Who has given back its only resource often has another soon: a request, an iteration.
        """
        idle = self._idle
        if pid in idle:
            return
        idle.append(pid)
        while len(idle) > 1:
            try:
                before = idle.popleft()
            except IndexError:
                # Other threads have dropped them all.
                return
            if (holdings := self.get(before)) is not None:
                self.drop_if_empty(before, holdings)

    def put_back(self, pid: int, kept: Iterable[tuple[ResourceId, T, int]]) -> None:
        """Reinstate what was taken out and could not be released, given oldest first."""
        with self._lock_of(pid):
            holdings = self.get_or_create(pid)
            for entry in kept:
                holdings.put(*entry)

    @property
    def records_sites(self) -> bool:
        """Whether the stack of each acquisition is kept."""
        return self.admission is not None and self.admission.record_sites

    def under_way(self) -> contextlib.AbstractContextManager[None]:
        """Mark a call that makes or releases what is in nobody's holdings meanwhile."""
        return _NO_RESERVATION if self.admission is None else self.admission.under_way()

    def admitted(
        self, pid: int, kind: str, nbytes: int
    ) -> contextlib.AbstractContextManager[Reservation | None]:
        """Raise if `pid` may not acquire; else reserve the bytes, if it has limits."""
        if nbytes < 0:
            raise ValueError(f"nbytes must not be negative, got {nbytes}")
        limits = None if self.admission is None else self.admission.check(pid)
        return (
            _NO_RESERVATION if limits is None else self.reserve(pid, kind, limits.of(kind), nbytes)
        )

    def reserve(self, pid: int, kind: str, limits: KindLimits, nbytes: int) -> Reservation:
        """Count an acquisition under way against the limits of `pid`.

        Raises ResourceLimitExceeded, with nothing reserved.
        """
        with self._lock_of(pid):
            holdings = self.get_or_create(pid)
            held = len(holdings) + holdings.pending
            if limits.max_count is not None and held >= limits.max_count:
                raise ResourceLimitExceeded(kind, pid, "resources", limits.max_count, held, 1)
            if limits.max_bytes is not None and holdings.nbytes + nbytes > limits.max_bytes:
                raise ResourceLimitExceeded(
                    kind, pid, "bytes", limits.max_bytes, holdings.nbytes, nbytes
                )
            holdings.pending += 1
            holdings.nbytes += nbytes
            return Reservation(self, pid, holdings, nbytes)

    def _lock_of(self, pid: int) -> threading.RLock:
        """Return the lock under which the holdings of `pid` are dropped, whichever they are."""
        return self._locks[pid % _LOCKS]
