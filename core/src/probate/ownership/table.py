"""OwnershipTable: who owns which resources of one kind, and how they are released."""

from __future__ import annotations

import itertools
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast, final

from probate.errors import AlreadyOwnedError, NotOwnedError, ProcessTerminatedError, safe_repr
from probate.outcome import Outcome, ResourceId
from probate.ownership.cleanup import Cleanup
from probate.ownership.holdings import HoldingsByOwner
from probate.ownership.index import ResourceIndex
from probate.ownership.release import Releaser, release_by_hand
from probate.ownership.sites import acquisition_site
from probate.system.forking import forget_in_forked_child
from probate.system.lazy import lazy_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from probate import models
    from probate.ownership.admission import Admission
    from probate.ownership.holdings import Reservation
    from probate.system.descriptor import OwnedDescriptor
else:
    models = lazy_module("probate.models")

T = TypeVar("T")
M = TypeVar("M")

_ids: Final = cast("Iterator[ResourceId]", itertools.count(1))


@final
class OwnershipTable(Generic[T]):
    """Keeps who owns which resources of one kind, and releases them.

    `kind` names the resources in errors and accounts. `release` gives one back: it may return an
    Outcome (None is RELEASED) or raise, as `cleanup` says, and may be a coroutine function, which
    runs on the event loop that ran where the resource was added, or on a new one if none did.
    `release_many` releases several at once, see `cleanup`.

    `describe` turns a resource into a short text, for accounts and usage. `identity` returns the
    object that may have one owner at a time only, the resource itself or what it wraps; the
    resource can then be found by that object, in O(1), at the price of an index. An int, such as a
    descriptor, is found by its value. `alias` turns what a user may hold instead, such as a
    wrapper, into that object. `descriptors` returns the numbers that a resource closes, the same
    objects at each call: each number has one owner in this OS process, whatever its kind.

    Thread-safe. A forked child starts with an empty table: it owns nothing, and what it
    inherited is kept from being finalised there. Resources are never None.
    """

    def __init__(
        self,
        kind: str,
        release: Callable[[T], object] | None = None,
        *,
        release_many: Callable[[list[T]], object] | None = None,
        describe: Callable[[T], str] = repr,
        identity: Callable[[T], object] | None = None,
        alias: Callable[[object], object] | None = None,
        descriptors: Callable[[T], Iterable[OwnedDescriptor]] | None = None,
    ) -> None:
        self.kind = kind
        #: How its resources are released.
        self.releaser = Releaser(release)
        self._release_many = release_many
        self._describe = describe
        self._by_owner: HoldingsByOwner[T] = HoldingsByOwner()
        self._sites: dict[ResourceId, str] = {}
        self._index = ResourceIndex(self, identity, alias, descriptors)
        #: Whether nothing is noted of a resource but its owner.
        self._is_plain = self._index.is_unused and not self.releaser.is_async
        #: Cleanups that exceptions from outside kept from their end, by owner.
        self._unfinished: dict[object, Cleanup[T]] = {}
        self._inherited: list[object] = []
        forget_in_forked_child(self)

    def __repr__(self) -> str:
        return f"<OwnershipTable {self.kind!r}, owners: {len(self.pids())}>"

    def __contains__(self, pid: object) -> bool:
        """Whether `pid` owns anything. O(1)."""
        holdings = self._by_owner.get(pid)  # type: ignore[arg-type]  # what is no pid has none
        if holdings is not None and (len(holdings) > 0 or holdings.is_moving):
            return True
        return bool(self._unfinished) and pid in self._unfinished

    def pids(self) -> list[int]:
        """Return all that own something, in no particular order."""
        return self._by_owner.pids()

    def has_owners(self) -> bool:
        """Tell whether anybody owns anything."""
        return self._by_owner.has_owners()

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
        owner = None
        if self._index.identity is None:
            native = self._index.resolve(identity)
            for resource_id, resource in self.owned(pid):
                if resource is native:
                    return resource_id
        elif (found := self._index.find(identity)) is not None:
            if found in (self._by_owner.get(pid) or ()):
                return found
            owner = self._by_owner.owner_of(found)
        raise NotOwnedError(self.kind, pid, safe_repr(identity), owner)

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

    # -- owning --------------------------------------------------------------

    def add(self, pid: int, resource: T, nbytes: int = 0) -> ResourceId:
        """Make `pid` the owner of `resource`, of so many bytes; return its id.

        For what exists already; what is yet to be made goes through `acquire`, which asks first.
        Raises ProcessTerminatedError if `pid` is terminating or has terminated,
        ProcessNotFoundError if it was never issued, ResourceLimitExceeded, or AlreadyOwnedError
        (with an `identity`). Nothing is recorded then, and the caller still holds the resource.
        """
        by_owner = self._by_owner
        admission = by_owner.admission
        revocations = 0 if admission is None else admission.revocations
        is_free = admission is None or pid in admission.unlimited
        if nbytes or not (is_free and self._is_plain):
            with by_owner.admitted(pid, self.kind, nbytes) as reservation:
                return self._record(pid, resource, nbytes, reservation, is_new=False)[0]
        resource_id = next(_ids)
        holdings = by_owner.get(pid)
        if holdings is None:
            holdings = by_owner.create(pid)
        holdings[resource_id] = resource
        # As of everything that is put in, only now; seldom, since `confirm` takes its time.
        is_in_doubt = holdings.is_dropped or (
            admission is not None and admission.revocations != revocations
        )
        if is_in_doubt and by_owner.confirm(pid, holdings, resource_id) is None:
            by_owner.insert(pid, resource_id, resource, 0)
        return resource_id

    def acquire(
        self,
        pid: int,
        make: Callable[[], M],
        release: Callable[[M], object] | None = None,
        *,
        nbytes: int = 0,
    ) -> M:
        """Make a resource that `pid` owns; return it.

        Raises what `add` raises, before `make` is called. Should the owner end while `make` runs,
        `release`, by default the table's, gives the new resource back, and this raises
        ProcessTerminatedError.
        """
        undo = self.releaser.choose(release)
        with self._by_owner.under_way(), self._by_owner.admitted(pid, self.kind, nbytes) as held:
            made = make()
            try:
                _, is_owned = self._record(pid, cast("T", made), nbytes, held, is_new=True)
            except BaseException:
                undo(cast("T", made))
                raise
        if not is_owned:
            raise ProcessTerminatedError(pid)
        return made

    def give_back(
        self, pid: int, native: object, release: Callable[[T], object] | None = None
    ) -> Outcome:
        """Release this very object of `pid` now; return its outcome.

        For closing by hand, before the owner ends. `release` replaces the table's. What is BUSY
        or TIMEOUT stays owned under its id, as does what an interrupt came into; after any other
        outcome nobody owns it. Raises NotOwnedError if `pid` does not own it, and whatever the
        release raises.
        """
        return self.give_back_id(pid, self.find(pid, native), release)

    def give_back_id(
        self, pid: int, resource_id: ResourceId, release: Callable[[T], object] | None = None
    ) -> Outcome:
        """Release the resource with this id now, as `give_back` does."""
        releaser = self.releaser.choose(release)
        nbytes = self._by_owner.size_of(pid, resource_id)
        holdings = self._by_owner.get(pid)
        loop = self.releaser.loop_of(None if holdings is None else holdings.get(resource_id))
        with self._by_owner.under_way():
            resource = self.release(pid, resource_id)
            if resource is None:
                return Outcome.ALREADY_GONE
            self.releaser.note(resource, loop)

            def put_back() -> None:
                with suppress(AlreadyOwnedError):
                    self._index.claim(self, pid, resource, resource_id)
                self._by_owner.put_back(pid, [(resource_id, resource, nbytes)])

            return release_by_hand(partial(releaser, resource), put_back)

    def release(self, pid: int, resource_id: ResourceId) -> T | None:
        """End the ownership of a resource and return it; the caller is to release it.

        Returns None if it was released before. Raises NotOwnedError if another process owns it,
        or the id was never issued.
        """
        holdings = self._by_owner.get(pid)
        if holdings is not None and (self._sites or not self._is_plain):
            found = holdings.get(resource_id)
            if found is not None:
                # Before it is taken out: should an interrupt come in between, it is still owned.
                self._forget(resource_id, found)
        resource = None if holdings is None else holdings.pop(resource_id, None)
        if holdings is None or resource is None:
            # Ids ascend: one that was issued, and that nobody owns, has been released.
            if self._by_owner.owner_of(resource_id) is None and 0 < resource_id < next(_ids):
                return None
            raise self._not_owned(pid, resource_id)
        if holdings.sizes:
            holdings.take_sizes((resource_id,))
        if not holdings:
            self._by_owner.drop_if_empty(pid, holdings)
        if not self._is_plain:
            self.releaser.forget(resource)
        return resource

    def disown(self, pid: int, identity: object) -> T | None:
        """End the ownership of an object that most likely `pid` owns; None if nobody does."""
        while True:
            try:
                return self.release(pid, self.find(pid, identity))
            except NotOwnedError as error:
                if error.owner is None:
                    return None
                # It was transferred.
                pid = error.owner

    def transfer(self, pid: int, resource_id: ResourceId, to: int) -> None:
        """Make `to` the owner of a resource of `pid`, under the same id.

        Atomic against cleanups of both. Raises NotOwnedError if `pid` does not own it, and what
        `add` raises if `to` may not; nothing has changed then.
        """
        resource = self.get(pid, resource_id)
        if to == pid:
            return
        nbytes = self._by_owner.size_of(pid, resource_id)
        with self._by_owner.admitted(to, self.kind, nbytes) as reservation:
            if not self._by_owner.move(pid, resource_id, to, reservation):
                raise self._not_owned(pid, resource_id)
        self._index.move(resource, resource_id, to)

    def cleanup(
        self, pid: int, release: Callable[[T], object] | None = None
    ) -> models.CleanupStats:
        """Release all that `pid` owns, newest first, each once; return the account.

        `release` replaces the table's. It returns an Outcome (None is RELEASED) or raises: a
        ReleaseError has its outcome, anything else is FAILED; BUSY and TIMEOUT stay owned. The
        table's `release_many` is called first, with a list of all, oldest first, and removes from
        the end what it has released. Raises TypeError where there is no release; once all is
        done, InterruptedCleanup if an exception fell in from outside meanwhile.
        """
        releaser = self.releaser.choose(release)
        release_many = self._release_many if release is None else None
        cleanup = self._unfinished.get(pid)
        if cleanup is None:
            holdings = self._by_owner.get(pid)
            if holdings is None:
                return models.NOTHING
            cleanup = Cleanup(self.kind, self.describe, holdings, self._index, self._sites)
        drop_if_empty = partial(self._by_owner.drop_if_empty, pid, cleanup.holdings)
        try:
            cleanup.run(releaser, release_many, drop_if_empty)
            self._unfinished.pop(pid, None)
        except BaseException:
            # One exception fell in upon the other. What was taken out is found by the next call.
            self._unfinished[pid] = cleanup
            raise
        if cleanup.kept:
            self._by_owner.put_back(pid, reversed(cleanup.kept))
        return cleanup.account()

    # -- called by the core only ------------------------------------------------

    @property
    def admission(self) -> Admission | None:
        """Return what decides who may own: one for all tables of an orchestrator."""
        return self._by_owner.admission

    def wire(self, kind: str, admission: Admission) -> None:
        """Serve `kind`, and let `admission` decide who may own."""
        self.kind = kind
        self._by_owner.admission = admission

    def forget_parent(self) -> None:
        """Own nothing, in a forked child, and keep what the parent uses from being finalised."""
        self._inherited.append(self._by_owner)
        self._by_owner, before = HoldingsByOwner(), self._by_owner
        self._by_owner.admission = before.admission
        self._sites = {}
        self._index.ids = {}

    # -- inside --------------------------------------------------------------

    def _record(
        self, pid: int, resource: T, nbytes: int, reservation: Reservation | None, *, is_new: bool
    ) -> tuple[ResourceId, bool]:
        """Put a resource in; return its new id, and False if a cleanup has taken it by now."""
        resource_id = next(_ids)
        try:
            self._index.claim(self, pid, resource, resource_id, is_new=is_new)
            self.releaser.note_here(resource)
            if self._by_owner.records_sites:
                self._sites[resource_id] = acquisition_site()
            stays = self._by_owner.insert(pid, resource_id, resource, nbytes, reservation)
        except BaseException:
            self._forget(resource_id, resource)
            self.releaser.forget(resource)
            raise
        return resource_id, stays

    def _forget(self, resource_id: ResourceId, resource: T) -> None:
        self._index.remove(resource, resource_id)
        if self._sites:
            self._sites.pop(resource_id, None)

    def _not_owned(self, pid: int, resource_id: ResourceId) -> NotOwnedError:
        owner = self._by_owner.owner_of(resource_id)
        return NotOwnedError(self.kind, pid, f"#{resource_id}", owner)
