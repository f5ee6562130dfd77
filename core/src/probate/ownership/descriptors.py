"""Which owned resource has which descriptor number, in all tables of this OS process.

A number is the OS process's: two kinds, or two orchestrators, that both have it would both close
it, and the second might close a stranger's. So there is one index, and a number has one owner. It
says who may have a number; that a resource is owned, and by whom, its table alone knows.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final

from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    import weakref
    from collections.abc import Iterable

    from probate.outcome import ResourceId
    from probate.ownership.admission import Admission
    from probate.system.descriptor import OwnedDescriptor


class Claimant(Protocol):
    """An ownership table, as far as it matters to those who would have the same number."""

    @property
    def kind(self) -> str:
        """Return the kind of all its resources."""

    @property
    def admission(self) -> Admission | None:
        """Return who decides who may acquire; None if it stands alone."""

    def owner_of_id(self, resource_id: ResourceId, likely: int | None = None) -> int | None:
        """Return who owns a resource of it, if anybody does."""

    def describe(self, resource: Any) -> str:
        """Describe a resource of it in a few words."""


@final
class Claim(NamedTuple):
    """One resource's claim to one number."""

    descriptor: OwnedDescriptor
    table: weakref.ref[Claimant]
    resource_id: ResourceId
    #: Who owned it when this was noted, and most likely does; None if that was not known.
    pid: int | None

    def refuses(self, other: Claim) -> bool:
        """Tell whether another claim to the number cannot stand beside this one."""
        table, claimant = self.table(), other.table()
        if table is None or claimant is None or self.resource_id == other.resource_id:
            return False
        return table.admission is not None or claimant.admission is None


@final
class DescriptorIndex:
    """Maps descriptor numbers to the resources that have them, whatever their table."""

    __slots__ = ("__weakref__", "_claims", "_lock")

    def __init__(self) -> None:
        self._claims: dict[int, Claim] = {}
        # Reentrant: a signal handler may adopt something while its thread does.
        self._lock = threading.RLock()
        forget_in_forked_child(self)

    def find(self, number: int) -> Claim | None:
        """Return whose a number was last known to be, whether or not it still is."""
        return self._claims.get(number)

    def has_owner(self, number: int) -> bool:
        """Tell whether a number is some resource's, of whatever kind and owner."""
        claim = self._claims.get(number)
        return claim is not None and claim.table() is not None and claim.descriptor.is_ours

    def enter(self, claims: list[Claim]) -> None:
        """Enter the numbers of a resource that has just been made.

        The kernel has given them out, so that whoever had them before has them no more.
        """
        for claim in claims:
            former = self._claims.get(claim.descriptor.number)
            if claim.descriptor.is_over:
                # It has ended meanwhile, and whoever has its number since is not to lose it.
                continue
            self._claims[claim.descriptor.number] = claim
            if former is not None and former.descriptor is not claim.descriptor:
                former.descriptor.forget()

    def try_to_enter(self, claims: list[Claim]) -> Claim | None:
        """Enter the numbers of a resource that exists already, unless one of them is another's.

        Returns that one's claim then, with nothing entered. A number that was closed elsewhere is
        nobody's, whatever has it now; and what a table without an orchestrator has may be owned in
        one.
        """
        with self._lock:
            for claim in claims:
                former = self._claims.get(claim.descriptor.number)
                if former is not None and former.refuses(claim) and former.descriptor.is_ours:
                    return former
            self.enter(claims)
        return None

    def restore(self, claim: Claim) -> None:
        """Enter a number that a resource has still, unless it is entered."""
        self._claims.setdefault(claim.descriptor.number, claim)

    def move(
        self, descriptors: Iterable[OwnedDescriptor], resource_id: ResourceId, pid: int
    ) -> None:
        """Note that `pid` owns their resource from now on."""
        for descriptor in descriptors:
            claim = self._claims.get(descriptor.number)
            if claim is not None and claim.resource_id == resource_id:
                self._claims[descriptor.number] = claim._replace(pid=pid)

    def remove(self, descriptors: Iterable[OwnedDescriptor], resource_id: ResourceId) -> None:
        """Take the numbers of a resource out, unless they are another's by now."""
        claims = self._claims
        for descriptor in descriptors:
            claim = claims.get(descriptor.number)
            if claim is not None and claim.resource_id == resource_id:
                popped = claims.pop(descriptor.number, None)
                if popped is not None and popped.resource_id != resource_id:
                    # Closed by now, it was given out anew in between.
                    claims.setdefault(descriptor.number, popped)

    def forget_table(self, table: weakref.ref[Claimant]) -> None:
        """Take out what a table had that is gone, with all that it kept."""
        for claim in list(self._claims.values()):
            if claim.table is table:
                self.remove((claim.descriptor,), claim.resource_id)

    def forget_parent(self) -> None:
        """Know no numbers, in a forked child, which owns none."""
        self._claims = {}
        self._lock = threading.RLock()


#: The one of this OS process.
DESCRIPTORS: Final = DescriptorIndex()


def has_owner(number: int) -> bool:
    """Tell whether any process owns a descriptor number, as a resource of whatever kind.

    For whatever comes upon numbers that it was not given: those of others are left alone.
    """
    return DESCRIPTORS.has_owner(number)
