"""The books behind an ownership table: one holdings per owner, safe from any thread.

An holdings is a dict from resource id to resource, in order of acquisition, so that `popitem` is
both "newest first" and atomic. No lock is on the hot path. Instead, an acquisition puts the
resource in and only then looks whether its owner is still admitted, and whether the holdings is
being dropped; whoever drops an holdings says so first, and only then looks whether it is empty.
So one of the two sees the other. A cleanup that was quicker than an acquisition has either taken
the resource, and released it, or left it to be taken back out.
"""

from __future__ import annotations

import threading
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

#: Holdings that share a lock hold each other up for some nanoseconds, if at all.
_LOCKS: Final = 16


@final
class Extra:
    """What few holdings need. Changed under the holdings' lock."""

    __slots__ = ("moving", "nbytes", "pending", "sizes")

    def __init__(self) -> None:
        #: Bytes of each resource that has any; and their sum, with what is charged already.
        self.sizes: dict[ResourceId, int] = {}
        self.nbytes = 0
        #: Acquisitions under way that count against a limit already.
        self.pending = 0
        #: Whether a resource is on its way out and may have to come back.
        self.moving = False


@final
class Holdings(dict[ResourceId, T]):
    """One owner's resources, oldest first. Most are small, and come and go."""

    __slots__ = ("extra", "is_dropped", "lock")

    #: Guards what is below, and the dropping of the holdings from its book. Shared with others.
    lock: threading.RLock
    #: Whether it has been dropped from its book, or is just about to be.
    is_dropped: bool
    #: None until there is a need for it.
    extra: Extra | None

    @property
    def nbytes(self) -> int:
        """Bytes of all resources, and of those that are charged already."""
        return 0 if self.extra is None else self.extra.nbytes

    @property
    def is_moving(self) -> bool:
        """Whether a resource is on its way out and may have to come back."""
        return self.extra is not None and self.extra.moving

    def take(self, resource_id: ResourceId) -> T | None:
        """Remove and return a resource, None if it is not here. Atomic."""
        return self.pop(resource_id, None)

    def size_of(self, resource_id: ResourceId) -> int:
        """The bytes of a resource."""
        return 0 if self.extra is None else self.extra.sizes.get(resource_id, 0)

    def set_size(self, resource_id: ResourceId, nbytes: int) -> None:
        """Record the bytes of a resource, before it is put in."""
        if nbytes:
            with self.lock:
                extra = self.with_extra()
                extra.sizes[resource_id] = nbytes
                extra.nbytes += nbytes

    def take_size(self, resource_id: ResourceId) -> int:
        """Remove and return the bytes of a resource that was taken out."""
        extra = self.extra
        if extra is None or not extra.sizes:
            return 0
        with self.lock:
            nbytes = extra.sizes.pop(resource_id, 0)
            extra.nbytes -= nbytes
        return nbytes

    def take_sizes(self, resource_ids: Iterable[ResourceId]) -> int:
        """Remove the bytes of resources that were taken out, and return their sum."""
        extra = self.extra
        if extra is None or not extra.sizes:
            return 0
        with self.lock:
            nbytes = sum(map(extra.sizes.pop, resource_ids, repeat(0)))
            extra.nbytes -= nbytes
        return nbytes

    def usage(
        self, kind: str, describe: Callable[[T], str], sites: Mapping[ResourceId, str]
    ) -> models.ResourceUsage:
        """What there is, each resource described, oldest first."""
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

    def with_extra(self) -> Extra:
        """What there is besides, set up if there is nothing. The lock is held."""
        if self.extra is None:
            self.extra = Extra()
        return self.extra


@final
class Reservation:
    """An acquisition under way that counts against its owner's limits already.

    A context manager: leaving it gives the charge up, unless the resource has taken its place.
    """

    __slots__ = ("_by_owner", "_pid", "holdings", "is_open", "nbytes")

    def __init__(
        self, book: HoldingsByOwner[Any], pid: int, holdings: Holdings[Any], nbytes: int
    ) -> None:
        self._by_owner = book
        self._pid = pid
        #: Never dropped while a charge is pending, so this is where the resource will be.
        self.holdings = holdings
        self.nbytes = nbytes
        self.is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self.holdings.lock:
            self.end()
        self._by_owner.drop_if_empty(self._pid, self.holdings)

    def end(self) -> None:
        """End the charge. The holdings' lock is held."""
        if self.is_open:
            self.is_open = False
            extra = self.holdings.with_extra()
            extra.pending -= 1
            extra.nbytes -= self.nbytes


@final
class HoldingsByOwner(Generic[T]):
    """All holdings of one table. Resources are never None."""

    __slots__ = ("_by_pid", "_locks", "_transfer_lock", "admission", "get")

    def __init__(self) -> None:
        self._by_pid: dict[int, Holdings[T]] = {}
        #: The holdings of a pid, None if it has none; the dict's own method.
        self.get: Callable[[int], Holdings[T] | None] = self._by_pid.get
        # Reentrant, as all locks here: a signal handler may terminate processes while its thread
        # holds one. Shared by holdings, whose end would else be the end of a lock each time.
        self._locks = tuple(threading.RLock() for _ in range(_LOCKS))
        self._transfer_lock = threading.RLock()
        #: Who may own; None lets everybody.
        self.admission: Admission | None = None

    def pids(self) -> list[int]:
        """All that own something, in no particular order."""
        return [
            pid for pid, holdings in list(self._by_pid.items()) if holdings or holdings.is_moving
        ]

    def size_of(self, pid: int, resource_id: ResourceId) -> int:
        """The bytes of a resource; 0 if `pid` does not own it."""
        holdings = self.get(pid)
        return 0 if holdings is None else holdings.size_of(resource_id)

    def owner_of(self, resource_id: ResourceId) -> int | None:
        """Who owns an id. O(owners): for error messages."""
        for pid, holdings in list(self._by_pid.items()):
            if resource_id in holdings:
                return pid
        return None

    def insert(
        self,
        pid: int,
        resource_id: ResourceId,
        resource: T,
        nbytes: int,
        reservation: Reservation | None = None,
    ) -> bool:
        """Put a resource in; False if a cleanup has taken it, and released it, by now.

        Raises what `Admission.check` raises, with the resource taken back out.
        """
        while True:
            holdings = self.get_or_create(pid)
            if reservation is not None and reservation.is_open:
                # In the place of its charge, at once: limits count neither both nor none.
                with holdings.lock:
                    reservation.end()
                    holdings.set_size(resource_id, nbytes)
                    holdings[resource_id] = resource
            else:
                holdings.set_size(resource_id, nbytes)
                holdings[resource_id] = resource
            stays = self.confirm(pid, holdings, resource_id)
            if stays is not None:
                return stays

    def confirm(self, pid: int, holdings: Holdings[T], resource_id: ResourceId) -> bool | None:
        """Whether what was just put in has come to stay.

        False if a cleanup has taken it, None if it was taken back out and is to be put in once
        more. Raises what `Admission.check` raises, with the resource taken back out.
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
        if holdings.take(resource_id) is None:
            return False
        holdings.take_size(resource_id)
        # If it was being dropped: that is through then, one way or the other.
        self.drop_if_empty(pid, holdings)
        if refusal is not None:
            raise refusal
        return None

    def move(
        self, pid: int, resource_id: ResourceId, to: int, reservation: Reservation | None = None
    ) -> bool:
        """Move a resource to another holdings; False if `pid` does not have it.

        Raises what `insert` raises; the resource is back in its place then.
        """
        holdings = self._by_pid.get(pid)
        if holdings is None:
            return False
        with self._transfer_lock:
            # From here on the holdings counts as not empty and is not dropped, so that a cleanup
            # of `pid` waits, and finds the resource again should `to` be refused.
            with holdings.lock:
                holdings.with_extra().moving = True
            try:
                resource = holdings.take(resource_id)
                if resource is None:
                    return False
                try:
                    nbytes = holdings.size_of(resource_id)
                    self.insert(to, resource_id, resource, nbytes, reservation)
                except BaseException:
                    holdings[resource_id] = resource
                    raise
                holdings.take_size(resource_id)
            finally:
                with holdings.lock:
                    holdings.with_extra().moving = False
        self.drop_if_empty(pid, holdings)
        return True

    def drop_if_empty(self, pid: int, holdings: Holdings[T]) -> bool:
        """Remove an empty holdings from the book; False if it turns out not to be empty."""
        while True:
            # Not by `with`, which takes more time than all the rest.
            lock = holdings.lock
            lock.acquire()
            try:
                extra = holdings.extra
                if extra is None or not extra.moving:
                    if extra is not None and extra.pending:
                        return not holdings
                    # Said before looking, while an acquisition puts in before it looks.
                    holdings.is_dropped = True
                    if holdings:
                        holdings.is_dropped = self.get(pid) is not holdings
                        return False
                    if self.get(pid) is holdings:
                        del self._by_pid[pid]
                    return True
            finally:
                lock.release()
            with self._transfer_lock:
                # The transfer is over now; what it left is seen at the next look.
                pass

    def put_back(self, pid: int, kept: Iterable[tuple[ResourceId, T, int]]) -> None:
        """Reinstate what a cleanup took out and could not release, oldest first."""
        entries = list(kept)
        while True:
            holdings = self.get_or_create(pid)
            with holdings.lock:
                # Holdings are dropped under their lock only, so this one stands until we are done.
                if self._by_pid.get(pid) is not holdings:
                    continue
                for resource_id, resource, nbytes in entries:
                    holdings.set_size(resource_id, nbytes)
                    holdings[resource_id] = resource
                return

    # -- limits --------------------------------------------------------------

    def reserve(self, pid: int, kind: str, limits: KindLimits, nbytes: int) -> Reservation:
        """Count an acquisition under way against the limits.

        Raises ResourceLimitExceeded, with nothing charged.
        """
        while True:
            holdings = self.get_or_create(pid)
            with holdings.lock:
                if self._by_pid.get(pid) is not holdings:
                    continue
                extra = holdings.with_extra()
                held = len(holdings) + extra.pending
                if limits.max_count is not None and held >= limits.max_count:
                    raise ResourceLimitExceeded(kind, pid, "resources", limits.max_count, held, 1)
                if limits.max_bytes is not None and extra.nbytes + nbytes > limits.max_bytes:
                    raise ResourceLimitExceeded(
                        kind, pid, "bytes", limits.max_bytes, extra.nbytes, nbytes
                    )
                extra.pending += 1
                extra.nbytes += nbytes
            return Reservation(self, pid, holdings, nbytes)

    def get_or_create(self, pid: int) -> Holdings[T]:
        """The holdings of `pid`, set up if it has none."""
        holdings = self.get(pid)
        return self.create(pid) if holdings is None else holdings

    def create(self, pid: int) -> Holdings[T]:
        """Set up the holdings of `pid`, which has none, unless another thread was quicker."""
        holdings: Holdings[T] = Holdings()
        holdings.lock = self._locks[pid % _LOCKS]
        holdings.is_dropped = False
        holdings.extra = None
        return self._by_pid.setdefault(pid, holdings)
