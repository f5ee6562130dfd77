"""The orchestrator: all registered kinds, and the cleaning of one pid over all of them."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final, overload

from probate.errors import (
    AlreadyOwnedError,
    NotOwnedError,
    ProbateError,
    UnadoptableError,
    UnknownKindError,
    safe_repr,
)
from probate.outcome import ResourceId
from probate.ownership.admission import Admission
from probate.ownership.callback import Callback
from probate.plugins.registry import PluginRegistry
from probate.system.arguments import checked_int
from probate.termination.waiting import run, run_async

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import pluggy

    from probate.models import CleanupResult, PluginRecord, ResourceUsage
    from probate.outcome import Outcome
    from probate.ownership.table import OwnershipTable
    from probate.plugins.discovery import DiscoveredPlugin
    from probate.plugins.registered import RegisteredKind
    from probate.termination.steps import Termination
    from probate.termination.waiting import Wait

P = TypeVar("P")
T = TypeVar("T")

#: Seconds that users of resources get to stop.
DEFAULT_GRACE: Final = 5.0

#: Seconds from the start after which nothing more is retried, and a hook that hangs is left.
DEFAULT_DEADLINE: Final = 30.0


class MissingKindWarning(UserWarning):
    """An expected kind has no plugin: its resources would leak."""


@final
class ResourceOrchestrator(Mapping[str, Any]):
    """A mapping of kind to plugin, iterated in cleanup order.

    Safe to share between threads. Pids are plain keys, unless a `ProcessManager` is built on it:
    then only the pids that the manager issued may own anything.
    """

    def __init__(self) -> None:
        self._registry = PluginRegistry(Admission())
        self._discovered: list[DiscoveredPlugin] = []

    def __repr__(self) -> str:
        return f"<ResourceOrchestrator {self.registered_types()!r}>"

    # -- registering ---------------------------------------------------------

    def register(self, plugin: object, name: str | None = None) -> Self:
        """Register a resource plugin as kind `name`; return self.

        Without a name it is the plugin's `kind`, or else its table's. A plugin that only wraps
        hooks is registered as an observer. Raises a PluginError, with nothing registered.
        """
        _load_what_settles()
        # First: the misspelling of another must not leave this one registered.
        self.check_pending()
        self._registry.register(plugin, name)
        return self

    def discover(
        self,
        only: Collection[str] | None = None,
        disable: Collection[str] = (),
        *,
        priorities: Mapping[str, int] | None = None,
    ) -> Self:
        """Load the installed plugins; return self.

        Kinds in `disable`, or not in `only`, are never imported. `priorities`, by kind, take the
        place of what the plugins say. A plugin that cannot be used is recorded with the reason,
        and the others are loaded; see `records`.

        Raises TypeError for a bare string, UnknownKindError if a kind in `only` is not installed;
        nothing is loaded then.
        """
        from probate.plugins import discovery

        _load_what_settles()
        self._discovered = discovery.discover(self._registry, only, disable, priorities)
        return self

    def check_pending(self) -> None:
        """Raise UnknownHookError if a plugin that pluggy was given directly misspells a hook."""
        self._registry.check_pending()

    @property
    def records(self) -> list[PluginRecord]:
        """What became of each entry point found: loaded kinds in cleanup order, then the others."""
        from probate.plugins.discovery import in_order

        return [each.record() for each in in_order(self._discovered, list(self))]

    @property
    def plugin_manager(self) -> pluggy.PluginManager:
        """The pluggy manager, for tracing, monitoring, and registering observers."""
        return self._registry.plugin_manager

    # -- the mapping ---------------------------------------------------------

    @overload
    def __getitem__(self, kind: type[P]) -> P: ...
    @overload
    def __getitem__(self, kind: str) -> Any: ...
    def __getitem__(self, kind: str | type[P]) -> Any:
        """Return the plugin of a kind, or, typed, the one plugin of a class.

        Raises UnknownKindError; LookupError for a class of which there are several.
        """
        if isinstance(kind, str):
            if (registered := self._registry.get(kind)) is not None:
                return registered.plugin
            raise UnknownKindError(kind, self.registered_types())
        found = self._of_class(kind)
        if not found:
            raise UnknownKindError(kind.__qualname__, self.registered_types())
        if len(found) > 1:
            kinds = ", ".join(each.kind for each in found)
            raise LookupError(f"several plugins are a {kind.__qualname__}: ask by name ({kinds})")
        return found[0].plugin

    def __contains__(self, kind: object) -> bool:
        if isinstance(kind, type):
            return bool(self._of_class(kind))
        return isinstance(kind, str) and self._registry.get(kind) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry.order())

    def __len__(self) -> int:
        return len(self._registry.frozen())

    def __bool__(self) -> bool:
        """An orchestrator is one even while nothing is registered."""
        return True

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def registered_types(self) -> list[str]:
        """All kinds, in cleanup order. Raises as `check_pending`."""
        self.check_pending()
        return self._registry.order()

    def resource_count(self) -> int:
        """How many kinds of resource are registered."""
        return len(self)

    def validate_coverage(self, expected: Iterable[str]) -> list[str]:
        """Return the kinds in `expected` that nobody serves, and warn of each.

        Raises TypeError for a bare string.
        """
        if isinstance(expected, str):
            raise TypeError(f"expected must be a collection of kinds, got the string {expected!r}")
        missing = [kind for kind in expected if kind not in self]
        for kind in missing:
            message = f"kind {kind!r} has no plugin: its resources would leak"
            warnings.warn(message, MissingKindWarning, stacklevel=2)
        return missing

    # -- one pid -------------------------------------------------------------

    def has_resources(self, pid: int) -> bool:
        """Whether `pid` owns anything of any kind (or a plugin cannot be asked)."""
        return bool(self._kinds_in_use(pid))

    def usage(self, pid: int) -> dict[str, ResourceUsage]:
        """What `pid` owns, by kind, in cleanup order; kinds it has nothing of are left out."""
        return {holder.kind: holder.usage_of(pid) for holder in self._kinds_in_use(pid)}

    @overload
    def adopt(self, pid: int, resource: object) -> ResourceId: ...
    @overload
    def adopt(
        self, pid: int, resource: T, release: Callable[[T], object] | Callable[[], object]
    ) -> ResourceId: ...
    def adopt(
        self, pid: int, resource: Any, release: Callable[..., object] | None = None
    ) -> ResourceId:
        """Have `pid` own an object that was made elsewhere; the first kind to take it releases it.

        With `release`, what no kind knows is given back by the function: `release(resource)`, or
        `release()` for a method of the object itself. A coroutine function runs on the event loop
        that runs here now, or on a new one (kind `callbacks`). Without, the kinds are asked.

        Raises UnadoptableError if no kind takes it, AlreadyOwnedError if it has an owner,
        ProcessTerminatedError, ProcessNotFoundError, ResourceLimitExceeded.
        """
        self._registry.admission.check(_checked_pid(pid))
        if release is not None:
            self._check_unowned(resource)
            resource = Callback.releasing(resource, release)
        errors: list[Exception] = []
        for kind in self._registry.frozen():
            try:
                resource_id: ResourceId | None = kind.adopt(pid=pid, resource=resource)
            except ProbateError:
                # A kind that knows the object has refused it; no other is asked to take it.
                raise
            except Exception as error:
                error.add_note(f"raised by adopt() of plugin {kind.kind!r}")
                errors.append(error)
            else:
                if resource_id is not None:
                    return resource_id
        unadoptable = UnadoptableError(
            resource, self.registered_types(), is_callback=isinstance(resource, Callback)
        )
        if errors:
            raise unadoptable from ExceptionGroup("some plugins failed to look at it", errors)
        raise unadoptable

    def give_back(self, pid: int, thing: object) -> Outcome:
        """Release now what `pid` owns: an object, or the id that `adopt` returned (any int).

        What is BUSY or TIMEOUT stays owned. Raises NotOwnedError if `pid` does not own it, and
        what its release raises.
        """
        table, resource_id = self._find(pid, thing, ints_are_ids=True)
        return table.give_back_id(pid, resource_id)

    async def give_back_async(self, pid: int, thing: object) -> Outcome:
        """As `give_back`, without blocking the event loop, which coroutine releases may need."""
        return await asyncio.to_thread(self.give_back, pid, thing)

    def disown(self, pid: int, thing: object) -> None:
        """Forget what `pid` owns, an object or an id, without releasing it: it is the caller's.

        Raises NotOwnedError if `pid` does not own it.
        """
        table, resource_id = self._find(pid, thing, ints_are_ids=True)
        table.release(pid, resource_id)

    def transfer(self, pid: int, resource: object, to: int) -> ResourceId:
        """Make `to` the owner of a native object that `pid` owns; return its id, which it keeps.

        Raises NotOwnedError if `pid` does not own it; and, `pid` owning it still,
        ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded if `to` may not.
        """
        table, resource_id = self._find(pid, resource)
        table.transfer(pid, resource_id, to)
        return resource_id

    def cleanup_process(
        self,
        pid: int,
        *,
        grace: float = DEFAULT_GRACE,
        deadline: float | None = DEFAULT_DEADLINE,
    ) -> CleanupResult:
        """Release everything that `pid` owns; return the account.

        `grace`: seconds for users of the resources to stop; 0 for none. `deadline`: seconds from
        now after which nothing is retried and a hook that hangs is left behind; None for never.
        Until it returns, `pid` can acquire nothing. A second call finds what the first left.

        Raises TypeError for a pid that is no int, ValueError for a negative number. A
        KeyboardInterrupt or SystemExit ends the grace, and is raised when all is released.
        """
        termination = self._termination(_checked_pid(pid), deadline)
        ended = run(self._steps(termination, checked_seconds("grace", grace)))
        if (interrupt := ended.interrupt or termination.interrupt) is not None:
            raise interrupt
        return ended.value

    async def cleanup_process_async(
        self,
        pid: int,
        *,
        grace: float = DEFAULT_GRACE,
        deadline: float | None = DEFAULT_DEADLINE,
    ) -> CleanupResult:
        """As `cleanup_process`, without blocking the event loop.

        A cancellation ends the grace, and is raised when all is released.
        """
        termination = self._termination(_checked_pid(pid), deadline)
        ended = await run_async(self._steps(termination, checked_seconds("grace", grace)))
        if (interrupt := ended.interrupt or termination.interrupt) is not None:
            raise interrupt
        return ended.value

    # -- inside --------------------------------------------------------------

    def _termination(self, pid: int, deadline: float | None) -> Termination:
        from probate.termination.steps import Termination

        if deadline is not None:
            checked_seconds("deadline", deadline)
        return Termination(pid, self._registry, deadline=deadline)

    def _of_class(self, kind: type[object]) -> list[RegisteredKind]:
        return [each for each in self._registry.frozen() if isinstance(each.plugin, kind)]

    def _tables(self) -> Iterator[OwnershipTable[Any]]:
        for kind in self._registry.frozen():
            yield from kind.tables

    def _check_unowned(self, resource: object) -> None:
        """Raise AlreadyOwnedError if any kind has the object already."""
        for table in self._tables():
            if (owner := table.owner_of(resource)) is not None:
                raise AlreadyOwnedError(table.kind, safe_repr(resource), owner)

    def _find(
        self, pid: int, thing: object, *, ints_are_ids: bool = False
    ) -> tuple[OwnershipTable[Any], ResourceId]:
        """Find the table in which `pid` owns an object. Raises NotOwnedError."""
        refusal: NotOwnedError | None = None
        for table in self._tables():
            try:
                if ints_are_ids and type(thing) is int:
                    table.get(pid, ResourceId(thing))
                    return table, ResourceId(thing)
                return table, table.find(pid, thing)
            except NotOwnedError as error:
                # The table that knows another owner has more to say than the others.
                refusal = error if error.owner is not None or refusal is None else refusal
        raise refusal or NotOwnedError("no kind", pid, safe_repr(thing))

    def _kinds_in_use(self, pid: int) -> list[RegisteredKind]:
        kinds_in_use = self._registry.kinds_in_use(_checked_pid(pid))
        if kinds_in_use.interrupt is not None:
            raise kinds_in_use.interrupt
        return kinds_in_use.kinds

    def _steps(
        self, termination: Termination, grace: float
    ) -> Generator[Wait, None, CleanupResult]:
        with self._registry.admission.refuse_while(termination.pid):
            yield from termination.quiesce()
            if grace and termination.futures:
                yield termination.grace(grace)
            return (yield from termination.release_all())


def _load_what_settles() -> None:
    # Before there is anything to settle: later there may be no descriptor left for it.
    import probate.termination.steps  # noqa: F401


def registry_of(orchestrator: ResourceOrchestrator) -> PluginRegistry:
    """Hand out what a process manager settles with: not for plugins, nor for users."""
    return orchestrator._registry  # noqa: SLF001  its own, in its own module


def _checked_pid(pid: int) -> int:
    return checked_int("a pid", pid)


def checked_seconds(name: str, seconds: float) -> float:
    """Return `seconds`. Raises ValueError unless it is a number of at least 0."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds >= 0:
        raise ValueError(f"{name} must be a number of seconds of at least 0, got {seconds!r}")
    return seconds
