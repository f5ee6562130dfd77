"""What became of one entry point, as discovery has found it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, final

if TYPE_CHECKING:
    from probate.models import PluginRecord
    from probate.outcome import PluginStatus


@final
class DiscoveredPlugin(NamedTuple):
    """Says what became of one entry point, with the fields of a `PluginRecord`.

    `probate plugins` shows it without importing pydantic.
    """

    kind: str
    distribution: str
    version: str
    priority: int | None
    status: PluginStatus
    reason: str

    def record(self) -> PluginRecord:
        """Make the record that users get."""
        from probate.models import PluginRecord

        return PluginRecord(**self._asdict())
