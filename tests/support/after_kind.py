"""A kind that is cleaned after maps and tasks, whose releases set their users free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from probate import CleanupStats, Ordering, OwnershipTable, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class AfterResource(Generic[T]):
    """Owns what `release` releases."""

    def __init__(self, kind: str, release: Callable[[T], None]) -> None:
        self.table: OwnershipTable[T] = OwnershipTable(kind)
        self._release = release

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(priority=10)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return pid in self.table

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return self.table.cleanup(pid, self._release)
