"""Finding resources by their objects and descriptors, each of which has one owner."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Generic, TypeVar, final

from probate.errors import AlreadyOwnedError
from probate.ownership.descriptors import DESCRIPTORS, Claim, Claimant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate.outcome import ResourceId
    from probate.system.descriptor import OwnedDescriptor

T = TypeVar("T")


def key_of(identity: object) -> int:
    """Return the key of an object: its address, or the value of an int, which may have several."""
    if type(identity) is int and identity >= 0:
        # Addresses are positive, so the two are never confused.
        return ~identity
    return id(identity)


@final
class ResourceIndex(Generic[T]):
    """Finds the resources of one table by the objects and descriptors that have one owner.

    `ids` has the objects, if there is an `identity`; descriptors are in the one index of this OS
    process.
    """

    __slots__ = ("_alias", "_descriptors", "_table", "identity", "ids")

    def __init__(
        self,
        table: Claimant,
        identity: Callable[[T], object] | None,
        alias: Callable[[object], object] | None,
        descriptors: Callable[[T], Iterable[OwnedDescriptor]] | None,
    ) -> None:
        self._table: weakref.ref[Claimant] = weakref.ref(
            table, None if descriptors is None else DESCRIPTORS.forget_table
        )
        #: Returns the object that may have one owner only; None if there may be several.
        self.identity = identity
        self._alias = alias
        self._descriptors = descriptors
        #: Key of the identity to id of the resource.
        self.ids: dict[int, ResourceId] = {}

    @property
    def is_unused(self) -> bool:
        """Whether nothing is ever entered."""
        return self.identity is None and self._descriptors is None

    def resolve(self, native: object) -> object:
        """Turn an object that a user may hold into the one that is indexed."""
        return native if self._alias is None else self._alias(native)

    def find(self, native: object) -> ResourceId | None:
        """Return the id of the resource with this identity, whoever owns it."""
        return self.ids.get(key_of(self.resolve(native)))

    def has_lost(self, native: object) -> bool:
        """Tell whether it is a number that was closed elsewhere, and may be another's."""
        claim = self.find_descriptor(native) if type(native) is int else None
        return claim is not None and not claim.descriptor.is_ours

    def find_descriptor(self, number: int) -> Claim | None:
        """Return which resource of the table was last known to have a number."""
        claim = DESCRIPTORS.find(number)
        return None if claim is None or claim.table is not self._table else claim

    def claim(
        self,
        table: Claimant,
        pid: int,
        resource: T,
        resource_id: ResourceId,
        *,
        is_new: bool = False,
    ) -> None:
        """Enter a resource of `pid`. Raises AlreadyOwnedError if another has what may be had once.

        One that is new has descriptors that the kernel has just given out: nobody else has them.
        """
        if self.identity is not None:
            identity = self.identity(resource)
            found = self.ids.setdefault(key_of(identity), resource_id)
            if found != resource_id:
                owner = table.owner_of_id(found)
                if owner is not None or type(identity) is not int:
                    raise AlreadyOwnedError(table.kind, table.describe(resource), owner)
                # Being released just now, it was given out anew by the kernel.
                self.ids[key_of(identity)] = resource_id
        if self._descriptors is None:
            return
        claims = [
            Claim(each, self._table, resource_id, pid) for each in self._descriptors(resource)
        ]
        if is_new:
            DESCRIPTORS.enter(claims)
        elif (other := DESCRIPTORS.try_to_enter(claims)) is not None:
            theirs: Claimant = other.table() or table
            raise AlreadyOwnedError(
                table.kind,
                table.describe(resource),
                theirs.owner_of_id(other.resource_id, other.pid),
                owned_as=theirs.kind,
                is_elsewhere=theirs.admission is not table.admission,
            )

    def move(self, resource: T, resource_id: ResourceId, pid: int) -> None:
        """Note that `pid` owns a resource from now on."""
        if self._descriptors is not None:
            DESCRIPTORS.move(self._descriptors(resource), resource_id, pid)

    def remove(self, resource: T, resource_id: ResourceId) -> None:
        """Take a resource out, which nobody owns any more."""
        if self.identity is not None:
            self.remove_identity(self.identity(resource), resource_id)
        self.remove_descriptors([(resource_id, resource)])

    def remove_identity(self, identity: object, resource_id: ResourceId) -> None:
        """Take an identity out, unless it is another resource's by now."""
        key = key_of(identity)
        if self.ids.get(key) == resource_id:
            popped = self.ids.pop(key, resource_id)
            if popped != resource_id:
                # A number that was closed by then, given out anew in between.
                self.ids.setdefault(key, popped)

    def restore_descriptors(self, resource: T, resource_id: ResourceId) -> None:
        """Have a resource that stays owned found by its descriptors, if it is not."""
        if self._descriptors is not None:
            for each in self._descriptors(resource):
                DESCRIPTORS.restore(Claim(each, self._table, resource_id, None))

    def remove_descriptors(self, resources: Iterable[tuple[ResourceId, T]]) -> None:
        """Take out the descriptors of resources, unless they are others' by now."""
        if self._descriptors is not None:
            for resource_id, resource in resources:
                DESCRIPTORS.remove(self._descriptors(resource), resource_id)
