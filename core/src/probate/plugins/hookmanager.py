"""pluggy's manager, which also knows whether anybody observes.

A call through pluggy costs several times what the hook itself does. Where nobody observes, the
registry calls the plugins directly, in the same order and with the same results; so it has to
know when somebody does.
"""

from __future__ import annotations

import inspect
import warnings
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, final

import pluggy

from probate import hookspecs
from probate.hookspecs import PROJECT
from probate.plugins.kind import ResourceKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from pluggy import HookimplOpts, HookspecOpts

    from probate.plugins.tracing import CallTrace

#: Attributes of every object, and of most others, none of which is a hook.
_PLAIN: Final = frozenset((*dir(object), "__dict__", "__module__", "__weakref__"))


def _in_class(cls: type, name: str) -> object:
    """Look up what a class has by a name, as it is."""
    return next((vars(each)[name] for each in cls.__mro__ if name in vars(each)), None)


@final
class HookManager(pluggy.PluginManager):
    """Manages Probate's hooks, and counts who takes part in calls."""

    def __init__(self) -> None:
        #: How many plugins there are, observers included.
        self.plugin_count = 0
        #: Those that are called around each call: monitoring, tracing.
        self.monitors: set[object] = set()
        #: The specifications of hooks that will go, or arguments of which will.
        self.deprecated: dict[str, HookspecOpts] = {}
        #: What writes of each call, where that is asked for.
        self.trace_of_calls: CallTrace | None = None
        super().__init__(PROJECT)
        self.add_hookspecs(hookspecs)

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> HookspecOpts | None:
        """Read what is deprecated, and keep it from pluggy.

        It would warn at each registration, of which there are several, and in mid-registration.
        """
        options = super().parse_hookspec_opts(module_or_class, name)
        if options is not None and (options["warn_on_impl"] or options["warn_on_impl_args"]):
            self.deprecated[name] = options
            return {**options, "warn_on_impl": None, "warn_on_impl_args": None}
        return options

    def parse_hookimpl_opts(self, plugin: object, name: str) -> HookimplOpts | None:
        """Look for a hook's mark, but not on what any object has, nor where a kind does nothing."""
        if name in _PLAIN:
            return None
        if isinstance(plugin, ResourceKind):
            if not plugin.implements(name):
                return None
            # What is plain is told in a fraction of the time that pluggy's look takes.
            if name in vars(plugin):
                if not callable(vars(plugin)[name]):
                    return None
            elif isinstance(method := _in_class(type(plugin), name), FunctionType):
                options: HookimplOpts | None = getattr(method, f"{PROJECT}_impl", None)
                return None if options is None else options.copy()
        return super().parse_hookimpl_opts(plugin, name)

    def register(self, plugin: Any, name: str | None = None) -> str | None:
        """Register a plugin, count anew, and warn of what it uses that will go."""
        registered = self.enroll(plugin, name)
        self.warn_of_deprecated(plugin)
        return registered

    def enroll(self, plugin: Any, name: str | None = None) -> str | None:
        """Register a plugin, and count anew."""
        try:
            return super().register(plugin, name)
        finally:
            self.plugin_count = len(self.get_plugins())

    def unregister(self, plugin: Any = None, name: str | None = None) -> Any:
        """Unregister a plugin, and count anew."""
        try:
            return super().unregister(plugin, name)
        finally:
            self.plugin_count = len(self.get_plugins())

    def warn_of_deprecated(self, plugin: object) -> None:
        """Warn of each hook, and argument of one, that a registered plugin uses and that will go.

        The warning is said to come from the line on which the plugin's function begins.
        """
        if not self.deprecated:
            return
        for caller in self.get_hookcallers(plugin) or ():
            for impl in caller.get_hookimpls():
                if impl.plugin is plugin and caller.name in self.deprecated:
                    _warn_of_use(caller.name, impl, self.deprecated[caller.name])

    def trace_calls(self, to: str | bool) -> None:
        """Trace all hook calls from now on, unless that is done; as `call_trace` says."""
        from probate.plugins.tracing import call_trace

        if to and self.trace_of_calls is None and (trace := call_trace(to)) is not None:
            self.trace_of_calls = trace
            self.add_hookcall_monitoring(trace.before, trace.after)

    def add_hookcall_monitoring(self, before: Any, after: Any) -> Callable[[], None]:
        """Have `before` and `after` called around each call; tracing does so, too."""
        monitor = object()
        # First, since calls may be observed from here on.
        self.monitors.add(monitor)
        undo = super().add_hookcall_monitoring(before, after)

        def undo_and_discard() -> None:
            undo()
            self.monitors.discard(monitor)

        return undo_and_discard


def _warn_of_use(hook: str, impl: pluggy.HookImpl, options: HookspecOpts) -> None:
    plugin = impl.plugin
    written = plugin.written_for(hook) if isinstance(plugin, ResourceKind) else None
    function = written or impl.function
    code = getattr(function, "__code__", impl.function.__code__)
    uses: dict[str, Any] = {f"{hook}()": options["warn_on_impl"]}
    taken = inspect.signature(function).parameters
    for name, warning in (options["warn_on_impl_args"] or {}).items():
        uses[f"`{name}` of {hook}()"] = warning if name in taken else None
    for what, warning in uses.items():
        if warning is not None:
            told = warning.used_as(f"{what}, which plugin {impl.plugin_name!r} uses,")
            warnings.warn_explicit(told, type(told), code.co_filename, code.co_firstlineno)
