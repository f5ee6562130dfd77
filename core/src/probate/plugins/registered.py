"""One registered resource plugin, and its hooks as the orchestrator calls them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from probate.hookspecs import runs_inline_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pluggy

    from probate.models import ResourceUsage
    from probate.ordering import Ordering
    from probate.ownership.table import OwnershipTable


@final
@dataclass(eq=False, repr=False)
class RegisteredKind:
    """Calls the hooks of one resource plugin.

    `cleanup`, `quiesce`, `adopt`, `usage`, `reclaim` and `noticed` reach this plugin and all
    observers, but no other resource plugin; what is called directly, and `holds`, the plugin alone.
    """

    kind: str
    plugin: object
    ordering: Ordering
    #: The plugin's own implementations, by hook.
    methods: Mapping[str, Callable[..., Any]]
    tables: Sequence[OwnershipTable[Any]]
    #: Whether its hooks take exactly a pid, and it wraps none of them.
    can_be_called_directly: bool

    def __post_init__(self) -> None:
        #: Whether a pid owns anything, asked directly.
        self.holds: Callable[[int], Any] = self.methods["has_resources"]
        #: The cleanup, called directly.
        self.clean_directly: Callable[[int], Any] = self.methods["cleanup"]

    def bind(self, manager: pluggy.PluginManager, others: Sequence[object]) -> None:
        """Build the callers that leave out `others`, whenever the plugins have changed."""
        self.cleanup = manager.subset_hook_caller("cleanup", others)
        self.quiesce = manager.subset_hook_caller("quiesce", others)
        self.adopt = manager.subset_hook_caller("adopt", others)
        self.usage = manager.subset_hook_caller("usage", others)
        self.reclaim = manager.subset_hook_caller("reclaim", others)
        self.noticed = manager.subset_hook_caller("noticed", others)

    @property
    def implements_quiesce(self) -> bool:
        """Whether the plugin has a `quiesce` of its own."""
        return "quiesce" in self.methods

    def quiesce_directly(self, pid: int) -> Any:
        """Call the plugin's `quiesce`, without observers."""
        return self.methods["quiesce"](pid)

    def runs_inline(self, hook: str, pid: int) -> bool:
        """Tell whether the plugin promises that this hook cannot block, for what `pid` owns."""
        return runs_inline_for(self.methods[hook], self.plugin, pid)

    def usage_of(self, pid: int) -> ResourceUsage:
        """Ask the plugin what `pid` owns, or its tables if it has no `usage`."""
        from probate.models import ResourceUsage

        if "usage" in self.methods:
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
