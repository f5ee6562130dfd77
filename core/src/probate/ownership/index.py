"""Finding resources by their objects, each of which has one owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.outcome import ResourceId

T = TypeVar("T")


def key_of(identity: object) -> int:
    """Return the key of an object: its address, or the value of an int, which may have several."""
    if type(identity) is int and identity >= 0:
        # Addresses are positive, so the two are never confused.
        return ~identity
    return id(identity)


@final
class IdentityIndex(Generic[T]):
    """Maps identities to ids, for a table with an `identity` function; else it stays empty."""

    __slots__ = ("_alias", "identity", "ids")

    def __init__(
        self,
        identity: Callable[[T], object] | None,
        alias: Callable[[object], object] | None,
    ) -> None:
        #: Returns the object that may have one owner only; None if there may be several.
        self.identity = identity
        self._alias = alias
        #: Key of the identity to id of the resource.
        self.ids: dict[int, ResourceId] = {}

    def resolve(self, native: object) -> object:
        """Turn an object that a user may hold into the one that is indexed."""
        return native if self._alias is None else self._alias(native)

    def find(self, native: object) -> ResourceId | None:
        """Return the id of the resource with this identity, whoever owns it."""
        return self.ids.get(key_of(self.resolve(native)))

    def claim(
        self, resource: T, resource_id: ResourceId, owner_of: Callable[[ResourceId], int | None]
    ) -> tuple[int | None] | None:
        """Enter a resource; return the owner of the identity, in a tuple, if it is another's.

        A number whose former holder nobody owns is being released just now, and was given out
        anew by the kernel: it is the new holder's.
        """
        if self.identity is None:
            return None
        identity = self.identity(resource)
        found = self.ids.setdefault(key_of(identity), resource_id)
        if found == resource_id:
            return None
        owner = owner_of(found)
        if owner is None and type(identity) is int:
            self.ids[key_of(identity)] = resource_id
            return None
        return (owner,)

    def remove(self, identity: object, resource_id: ResourceId) -> None:
        """Take an identity out, unless it is another resource's by now."""
        key = key_of(identity)
        if self.ids.get(key) == resource_id:
            del self.ids[key]
