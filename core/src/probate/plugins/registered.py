"""One registered resource plugin, and its hooks as the orchestrator calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from probate.hookspecs import runs_inline_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pluggy

    from probate.models import ResourceUsage
    from probate.ordering import Ordering
    from probate.ownership.table import OwnershipTable


@final
class RegisteredKind:
    """One resource plugin, and its hooks as the orchestrator calls them.

    Each caller reaches this plugin and all observers, and no other resource plugin. What is
    called directly reaches the plugin alone.
    """

    __slots__ = (
        "_methods",
        "adopt",
        "can_be_called_directly",
        "clean_directly",
        "cleanup",
        "holds",
        "kind",
        "ordering",
        "plugin",
        "quiesce",
        "tables",
        "usage",
    )

    def __init__(
        self,
        kind: str,
        plugin: object,
        ordering: Ordering,
        methods: dict[str, Callable[..., Any]],
        tables: Sequence[OwnershipTable[Any]],
        *,
        can_be_called_directly: bool,
    ) -> None:
        self.kind = kind
        self.plugin = plugin
        self.ordering = ordering
        self.tables = tuple(tables)
        self._methods = methods
        #: Whether its hooks take a pid, and nothing of its own wraps them.
        self.can_be_called_directly = can_be_called_directly
        #: Ask the plugin itself whether a pid owns anything.
        self.holds: Callable[[int], Any] = methods["has_resources"]
        #: Call the plugin itself, past all observers.
        self.clean_directly: Callable[[int], Any] = methods["cleanup"]

    def bind(self, manager: pluggy.PluginManager, others: Sequence[object]) -> None:
        """Build the hook callers, anew whenever the set of plugins has changed."""
        self.cleanup = manager.subset_hook_caller("cleanup", others)
        self.quiesce = manager.subset_hook_caller("quiesce", others)
        self.adopt = manager.subset_hook_caller("adopt", others)
        self.usage = manager.subset_hook_caller("usage", others)

    @property
    def implements_quiesce(self) -> bool:
        """Whether there is anybody to ask to stop."""
        return "quiesce" in self._methods

    def quiesce_directly(self, pid: int) -> Any:
        """Call the plugin itself, past all observers."""
        return self._methods["quiesce"](pid)

    def runs_inline(self, hook: str, pid: int) -> bool:
        """Whether the plugin promises that this hook cannot block, for what `pid` owns."""
        return runs_inline_for(self._methods[hook], self.plugin, pid)

    def usage_of(self, pid: int) -> ResourceUsage:
        """What `pid` owns, by the plugin's own word or else by its tables."""
        from probate.models import ResourceUsage

        if "usage" in self._methods:
            parts = self.usage(pid=pid)
        else:
            parts = [table.usage(pid) for table in self.tables]
        return ResourceUsage(
            kind=self.kind,
            count=sum(part.count for part in parts),
            nbytes=sum(part.nbytes for part in parts),
            resources=tuple(info for part in parts for info in part.resources),
            os=next((part.os for part in parts if part.os is not None), None),
        )
