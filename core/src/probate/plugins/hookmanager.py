"""pluggy's manager, which also knows whether anybody looks on.

A call through pluggy costs several times what the called hook does. Where nobody looks on, the
registry calls the plugins themselves, in the same order and with the same results; so it has to
know when somebody does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import pluggy

from probate import hookspecs
from probate.hookspecs import PROJECT
from probate.plugins.kind import ResourceKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from pluggy import HookimplOpts

#: What every object has, and no hook is.
_PLAIN: Final = frozenset(dir(object))


@final
class HookManager(pluggy.PluginManager):
    """A `pluggy.PluginManager` for Probate's hooks."""

    def __init__(self) -> None:
        #: How many plugins there are, observers included.
        self.plugin_count = 0
        #: How many are called back at each call: monitoring, tracing.
        self.monitor_count = 0
        super().__init__(PROJECT)
        self.add_hookspecs(hookspecs)

    def parse_hookimpl_opts(self, plugin: object, name: str) -> HookimplOpts | None:
        """As pluggy's, but for what any object has, and for what a kind has nothing behind."""
        if name in _PLAIN or (isinstance(plugin, ResourceKind) and not plugin.implements(name)):
            return None
        return super().parse_hookimpl_opts(plugin, name)

    def register(self, plugin: Any, name: str | None = None) -> str | None:
        """As pluggy's."""
        try:
            return super().register(plugin, name)
        finally:
            self.plugin_count = len(self.get_plugins())

    def unregister(self, plugin: Any = None, name: str | None = None) -> Any:
        """As pluggy's."""
        try:
            return super().unregister(plugin, name)
        finally:
            self.plugin_count = len(self.get_plugins())

    def add_hookcall_monitoring(self, before: Any, after: Any) -> Callable[[], None]:
        """As pluggy's; tracing comes through here, too."""
        # First: from here on every call is one that may be looked at.
        self.monitor_count += 1
        undo = super().add_hookcall_monitoring(before, after)
        is_undone = False

        def undo_once() -> None:
            nonlocal is_undone
            undo()
            if not is_undone:
                is_undone = True
                self.monitor_count -= 1

        return undo_once
