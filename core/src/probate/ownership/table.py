"""OwnershipTable: who owns which resources of one kind, and how they are released."""

from __future__ import annotations

import itertools
from contextlib import suppress
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

from probate.errors import AlreadyOwnedError, NotOwnedError, ProcessTerminatedError
from probate.outcome import Outcome, ResourceId
from probate.ownership.cleanup import Cleanup
from probate.ownership.holdings import HoldingsByOwner
from probate.ownership.index import ResourceIndex
from probate.ownership.queries import OwnershipQueries
from probate.ownership.release import Releaser, release_by_hand
from probate.ownership.sites import acquisition_site
from probate.system.forking import forget_in_forked_child
from probate.system.lazy import lazy_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from probate import models
    from probate.journal.host import Row
    from probate.journal.named import Named
    from probate.ownership.admission import Admission
    from probate.ownership.holdings import Reservation
    from probate.system.descriptor import OwnedDescriptor
else:
    models = lazy_module("probate.models")

T = TypeVar("T")
M = TypeVar("M")

#: How often a cleanup calls a release once more that an exception fell into.
_MOST_REPEATS: Final = 64

_ids: Final = cast("Iterator[ResourceId]", itertools.count(1))


@final
class OwnershipTable(OwnershipQueries[T]):
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
    `repeatable` says that `release` looks what is still there: if an exception falls into it at the
    owner's end, of a signal handler, it is called once more, and not given up as FAILED.

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
        repeatable: bool = False,
    ) -> None:
        self.kind = kind
        #: How its resources are released.
        self.releaser = Releaser(release)
        self._release_many = release_many
        self._describe = describe
        self._repeats = _MOST_REPEATS if repeatable else 0
        self._by_owner: HoldingsByOwner[T] = HoldingsByOwner()
        self._sites: dict[ResourceId, str] = {}
        #: What is noted in the journal, of things that outlive this OS process by their names.
        self._rows: dict[ResourceId, Row] = {}
        self._index = ResourceIndex(self, identity, alias, descriptors)
        #: Whether nothing is noted of a resource but its owner.
        self._is_plain = self._index.is_unused and not self.releaser.is_async
        #: Cleanups that exceptions from outside kept from their end, by owner.
        self._unfinished: dict[object, Cleanup[T]] = {}
        self._inherited: list[object] = []
        forget_in_forked_child(self)

    def __repr__(self) -> str:
        return f"<OwnershipTable {self.kind!r}, owners: {len(self.pids())}>"

    # -- owning --------------------------------------------------------------

    def add(
        self, pid: int, resource: T, nbytes: int = 0, *, named: Named[T] | None = None
    ) -> ResourceId:
        """Make `pid` the owner of `resource`, of so many bytes; return its id.

        For what exists already; what is yet to be made goes through `acquire`, which asks first.
        `named` says how it is found should this OS process die, if it outlives it. Raises
        ProcessTerminatedError if `pid` is terminating or has terminated,
        ProcessNotFoundError if it was never issued, ResourceLimitExceeded, or AlreadyOwnedError
        (with an `identity`). Nothing is recorded then, and the caller still holds the resource.
        """
        by_owner = self._by_owner
        admission = by_owner.admission
        revocations = 0 if admission is None else admission.revocations
        is_free = admission is None or pid in admission.unlimited
        if nbytes or named or not (is_free and self._is_plain):
            with by_owner.admitted(pid, self.kind, nbytes) as reservation:
                row = self._intend(pid, named)
                if row is not None:
                    row.adopt(resource)
                return self._record(pid, resource, nbytes, reservation, row, is_new=False)[0]
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
        named: Named[M] | None = None,
    ) -> M:
        """Make a resource that `pid` owns; return it.

        `named` says how it is found should this OS process die, if it outlives it: noted in the
        journal, where there is one, before it is made. Raises what `add` raises, and
        JournalNotArmedError, before `make` is called. A `make` that does not know whether there is
        a thing now, such as for a lost connection, raises UnsettledResourceError: nobody owns one
        then, and what was noted is settled when this OS process has died. Should the owner end
        while `make` runs, `release`, by default the table's, gives the new resource back, and this
        raises ProcessTerminatedError.
        """
        undo = self.releaser.choose(release)
        with self._by_owner.under_way(), self._by_owner.admitted(pid, self.kind, nbytes) as held:
            row = self._intend(pid, named)
            making = make if row is None else partial(row.make, make, undo)
            made: list[M] = []
            try:
                # What is made is noted in the same step: no interrupt comes in between.
                made.extend(starmap(making, ((),)))
                _, is_owned = self._record(pid, cast("T", made[0]), nbytes, held, row)
            except BaseException:
                for each in made:
                    undo(cast("T", each))
                    if row is not None:
                        row.delete()
                raise
        if not is_owned:
            raise ProcessTerminatedError(pid)
        return made[0]

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
        # Kept until it is released, and put back with it.
        row = self._rows.get(resource_id)
        resource: T | None = None
        is_begun = False

        def put_back() -> None:
            self._put_back(pid, resource_id, cast("T", resource), nbytes, row)

        def begin() -> object:
            nonlocal is_begun
            is_begun = True
            return releaser(cast("T", resource))

        with self._by_owner.under_way():
            resource = self._take(pid, resource_id, row)
            if resource is None:
                return Outcome.ALREADY_GONE
            try:
                self.releaser.note(resource, loop)
                outcome = release_by_hand(begin, put_back)
            except BaseException:
                if not is_begun:
                    put_back()
                raise
            if row is not None and not outcome.is_error:
                row.delete()
            return outcome

    def release(self, pid: int, resource_id: ResourceId) -> T | None:
        """End the ownership of a resource and return it; the caller is to release it.

        Returns None if it was released before. Raises NotOwnedError if another process owns it,
        or the id was never issued.
        """
        resource = self._take(pid, resource_id)
        if not self._is_plain and (row := self._rows.pop(resource_id, None)) is not None:
            row.delete()
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
            if not holdings and (holdings is None or self._by_owner.drop_if_empty(pid, holdings)):
                return models.NOTHING
            found = holdings, self._index, self._sites, self._rows
            cleanup = Cleanup(self.kind, self.describe, *found, repeats=self._repeats)
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
        self._rows = {}
        self._index.ids = {}

    # -- inside --------------------------------------------------------------

    def _take(self, pid: int, resource_id: ResourceId, row: Row | None = None) -> T | None:
        """Take a resource out, with its `row`; None if it was released before.

        Raises NotOwnedError if another process owns it, or the id was never issued. Should an
        exception fall in, it is still owned.
        """
        holdings = self._by_owner.get(pid)
        if holdings is None:
            self._check_released(pid, resource_id)
            return None
        is_plain = self._is_plain
        nbytes = holdings.size_of(resource_id) if holdings.sizes else 0
        taken: list[T | None] = []
        try:
            # In one step, so that it is known what has been taken out.
            taken.extend(starmap(holdings.pop, ((resource_id, None),)))
            (resource,) = taken
            if resource is None:
                self._check_released(pid, resource_id)
                return None
            if holdings.sizes:
                holdings.take_sizes((resource_id,))
            if self._sites or not is_plain:
                self._forget(resource_id, resource)
            if not holdings:
                self._by_owner.rest(pid)
            if not is_plain:
                if row is not None:
                    self._rows.pop(resource_id, None)
                self.releaser.forget(resource)
        except BaseException:
            for each in taken:
                if each is not None:
                    self._put_back(pid, resource_id, each, nbytes, row)
            raise
        return resource

    def _put_back(
        self, pid: int, resource_id: ResourceId, resource: T, nbytes: int, row: Row | None
    ) -> None:
        with suppress(AlreadyOwnedError):
            self._index.claim(self, pid, resource, resource_id)
        if row is not None:
            self._rows[resource_id] = row
        self._by_owner.put_back(pid, [(resource_id, resource, nbytes)])

    def _check_released(self, pid: int, resource_id: ResourceId) -> None:
        """Raise NotOwnedError unless an id was issued, and nobody owns it any more."""
        # Ids ascend: one that was issued, and that nobody owns, has been released.
        if self._by_owner.owner_of(resource_id) is None and 0 < resource_id < next(_ids):
            return
        raise self._not_owned(pid, resource_id)

    def _intend(self, pid: int, named: Named[Any] | None) -> Row | None:
        """Note in the journal, where there is one, that a thing is about to be made."""
        if named is None or self.admission is None or (journal := self.admission.journal) is None:
            return None
        return journal.intend(self.kind, pid, named)

    def _record(
        self,
        pid: int,
        resource: T,
        nbytes: int,
        reservation: Reservation | None,
        row: Row | None = None,
        *,
        is_new: bool = True,
    ) -> tuple[ResourceId, bool]:
        """Put a resource in; return its new id, and False if a cleanup has taken it by now."""
        resource_id = next(_ids)
        try:
            if row is not None:
                self._is_plain = False
                self._rows[resource_id] = row
            self._index.claim(self, pid, resource, resource_id, is_new=is_new)
            self.releaser.note_here(resource)
            if self._by_owner.records_sites:
                self._sites[resource_id] = acquisition_site()
            stays = self._by_owner.insert(pid, resource_id, resource, nbytes, reservation)
        except BaseException:
            # Also if an exception fell in when it was there already.
            self._by_owner.withdraw(pid, resource_id)
            self._forget(resource_id, resource)
            self.releaser.forget(resource)
            if self._rows.pop(resource_id, None) is not None and row is not None:
                row.delete()
            raise
        return resource_id, stays

    def _forget(self, resource_id: ResourceId, resource: T) -> None:
        self._index.remove(resource, resource_id)
        if self._sites:
            self._sites.pop(resource_id, None)
