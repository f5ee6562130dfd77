"""What becomes of an entry point that was found, in plain values: telling it takes no pydantic."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from probate.models import PluginRecord


class PluginStatus(StrEnum):
    """What became of an entry point that was found."""

    LOADED = "loaded"
    #: Asked for by nobody, or switched off by name; never imported.
    DISABLED = "disabled"
    #: Another distribution serves the same kind.
    DUPLICATE = "duplicate"
    #: Its distribution asks for another version of the core; never imported.
    INCOMPATIBLE = "incompatible"
    #: Its import, constructor or contract went wrong.
    FAILED = "failed"


@final
class DiscoveredPlugin(NamedTuple):
    """One entry point, and what became of it: field by field what a `PluginRecord` says."""

    kind: str
    distribution: str
    version: str
    priority: int | None
    status: PluginStatus
    reason: str

    def record(self) -> PluginRecord:
        """The same, as it crosses the border."""
        from probate.models import PluginRecord

        return PluginRecord(**self._asdict())


def in_order(fates: Iterable[DiscoveredPlugin], kinds: Sequence[str]) -> list[DiscoveredPlugin]:
    """Loaded kinds as they stand in `kinds`, the cleanup order; then the others."""
    place = {kind: index for index, kind in enumerate(kinds)}
    last = len(place)

    def rank(fate: DiscoveredPlugin) -> tuple[int, str, str]:
        is_loaded = fate.status is PluginStatus.LOADED
        return place.get(fate.kind, last) if is_loaded else last, fate.kind, fate.distribution

    return sorted(fates, key=rank)
