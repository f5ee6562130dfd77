"""What an ownership table can be asked: who owns what, and what that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from probate.errors import NotOwnedError, safe_repr
from probate.system.lazy import lazy_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import models
    from probate.outcome import ResourceId
    from probate.ownership.admission import Admission
    from probate.ownership.cleanup import Cleanup
    from probate.ownership.holdings import HoldingsByOwner
    from probate.ownership.index import ResourceIndex
else:
    models = lazy_module("probate.models")

T = TypeVar("T")


class OwnershipQueries(Generic[T]):
    """Answers questions about the resources of one kind: the half of a table that changes nothing.

    Thread-safe.
    """

    kind: str
    _describe: Callable[[T], str]
    _by_owner: HoldingsByOwner[T]
    _sites: dict[ResourceId, str]
    _index: ResourceIndex[T]
    _unfinished: dict[object, Cleanup[T]]

    def __contains__(self, pid: object) -> bool:
        """Whether `pid` owns anything. O(1)."""
        holdings = self._by_owner.get(pid)  # type: ignore[arg-type]  # what is no pid has none
        if holdings is not None and (len(holdings) > 0 or holdings.is_moving):
            return True
        return bool(self._unfinished) and pid in self._unfinished

    def pids(self) -> list[int]:
        """Return all that own something, in no particular order."""
        return self._by_owner.pids()

    def count(self, pid: int) -> int:
        """Count the resources of `pid`."""
        return len(self._by_owner.get(pid) or ())

    def nbytes(self, pid: int) -> int:
        """Add up the bytes of all that `pid` owns."""
        holdings = self._by_owner.get(pid)
        return 0 if holdings is None else holdings.nbytes

    def get(self, pid: int, resource_id: ResourceId) -> T:
        """Return a resource of `pid`. Raises NotOwnedError if it does not own that id."""
        holdings = self._by_owner.get(pid)
        resource = None if holdings is None else holdings.get(resource_id)
        if resource is None:
            raise self._not_owned(pid, resource_id)
        return resource

    def resources(self, pid: int) -> list[T]:
        """List the resources of `pid`, oldest first."""
        holdings = self._by_owner.get(pid)
        return [] if holdings is None else list(holdings.values())

    def owned(self, pid: int) -> list[tuple[ResourceId, T]]:
        """List ids and resources of `pid`, newest first."""
        holdings = self._by_owner.get(pid)
        return [] if holdings is None else list(holdings.items())[::-1]

    def find(self, pid: int, identity: object) -> ResourceId:
        """Return the id under which `pid` owns this very object.

        O(1) with an `identity`, else O(own). Raises NotOwnedError if it does not own it.
        """
        found = self.find_if_owned(pid, identity)
        if found is None:
            owner = None
            if self._index.identity is not None:
                other = self._index.find(identity)
                owner = None if other is None else self._by_owner.owner_of(other)
            raise NotOwnedError(self.kind, pid, safe_repr(identity), owner)
        return found

    def find_if_owned(self, pid: int, identity: object) -> ResourceId | None:
        """Find as `find` does; None if `pid` does not own it."""
        holdings = self._by_owner.get(pid)
        if not holdings:
            return None
        if self._index.identity is not None:
            found = self._index.find(identity)
            return found if found in holdings else None
        native = self._index.resolve(identity)
        for resource_id, resource in self.owned(pid):
            if resource is native:
                return resource_id
        return None

    def id_if_owned(self, pid: int, number: object) -> ResourceId | None:
        """Return a number that is the id of what `pid` owns; None if it is not."""
        holdings = self._by_owner.get(pid)
        return number if holdings and number in holdings else None  # type: ignore[return-value]  # one of its keys

    def owner_of(self, identity: object) -> int | None:
        """Return who owns this very object, None if nobody does. O(owners); needs `identity`."""
        found = None if self._index.has_lost(identity) else self._index.find(identity)
        return None if found is None else self._by_owner.owner_of(found)

    def owner_of_id(self, resource_id: ResourceId, likely: int | None = None) -> int | None:
        """Return who owns an id, None if nobody does. O(owners), but for who is `likely` to."""
        if likely is not None and resource_id in (self._by_owner.get(likely) or ()):
            return likely
        return self._by_owner.owner_of(resource_id)

    def with_descriptor(self, number: int) -> tuple[int, T] | None:
        """Return what was last known to have a descriptor number, and its owner.

        None if that is nothing of this table. It may have been closed since: ask the descriptor.
        """
        claim = self._index.find_descriptor(number)
        if claim is None or (pid := self.owner_of_id(claim.resource_id, claim.pid)) is None:
            return None
        return pid, self.get(pid, claim.resource_id)

    def usage(self, pid: int) -> models.ResourceUsage:
        """Describe what `pid` owns, oldest first."""
        holdings = self._by_owner.get(pid)
        if holdings is None:
            return models.ResourceUsage(kind=self.kind)
        return holdings.usage(self.kind, self.describe, self._sites)

    def describe(self, resource: T) -> str:
        """Describe a resource in a short text, for accounts. Never raises."""
        # A resource in a bad state may not even have a repr; the account still needs a name.
        return safe_repr(resource, self._describe)

    def check_admitted(self, pid: int) -> None:
        """Raise what `add` would raise if `pid` may not own anything: to ask before one begins."""
        if self.admission is not None:
            self.admission.check(pid)

    @property
    def keeps_journal(self) -> bool:
        """Whether what is made with a `named` is noted in a journal, which takes its time."""
        return self.admission is not None and self.admission.journal is not None

    # -- called by the core only ------------------------------------------------

    @property
    def admission(self) -> Admission | None:
        """Return what decides who may own: one for all tables of an orchestrator."""
        return self._by_owner.admission

    # -- inside --------------------------------------------------------------

    def _not_owned(self, pid: int, resource_id: ResourceId) -> NotOwnedError:
        owner = self._by_owner.owner_of(resource_id)
        return NotOwnedError(self.kind, pid, f"#{resource_id}", owner)
