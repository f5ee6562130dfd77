"""The orchestrator: registers kinds of resource, and releases what a pid owns over all of them."""

from __future__ import annotations

import asyncio
import warnings
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final, overload

from probate.errors import (
    AlreadyOwnedError,
    NotOwnedError,
    ProbateError,
    UnadoptableError,
    safe_repr,
)
from probate.ownership.admission import Admission
from probate.ownership.callback import Callback
from probate.plugins.registry import PluginRegistry
from probate.system.arguments import checked_pid, checked_seconds
from probate.termination.waiting import run_async, run_through

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import pluggy

    from probate.models import CleanupResult, PluginRecord, ResourceRecord, ResourceUsage
    from probate.outcome import Outcome, ResourceId
    from probate.ownership.table import OwnershipTable
    from probate.plugins.registered import RegisteredKind
    from probate.termination.steps import Termination
    from probate.termination.waiting import Wait

P = TypeVar("P")
T = TypeVar("T")

#: Seconds that the users of resources get to stop.
DEFAULT_GRACE: Final = 5.0

#: Seconds from the start after which nothing is retried and a hook that hangs is left behind.
DEFAULT_DEADLINE: Final = 30.0


class MissingKindWarning(UserWarning):
    """Warns of an expected kind without a plugin: its resources would leak."""


@final
class ResourceOrchestrator(Mapping[str, Any]):
    """Maps each kind to its plugin, in cleanup order, and releases what a pid owns.

    It may be shared between threads. Pids are plain keys, unless a `ProcessManager` is built on
    it: then only the pids that the manager issued may own anything. What is no int is a TypeError
    wherever a pid is taken.
    """

    def __init__(self) -> None:
        self._registry = PluginRegistry(Admission())

    def __repr__(self) -> str:
        return f"<ResourceOrchestrator {self.registered_types()!r}>"

    # -- registering ---------------------------------------------------------

    def register(self, plugin: object, name: str | None = None) -> Self:
        """Register a resource plugin as kind `name`; return self.

        Without a name, the kind is the plugin's `kind`, or else its table's. A plugin that only
        wraps hooks is registered as an observer. Raises a PluginError, with nothing registered.
        """
        _import_termination()
        # First, since another's misspelling must not be raised with this one registered.
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
        and the others are loaded; see `records`. Raises TypeError for a bare string and
        UnknownKindError for a kind that is not installed, in any of the three, with nothing
        loaded.
        """
        from probate.plugins import discovery

        _import_termination()
        discovery.discover(self._registry, only, disable, priorities)
        return self

    def check_pending(self) -> None:
        """Check plugins that were registered with pluggy itself, of which nobody was told.

        Raises UnknownHookError if one misspells a hook.
        """
        self._registry.check_pending()

    @property
    def records(self) -> list[PluginRecord]:
        """Return what became of each entry point found: loaded kinds in order, then the others."""
        from probate.plugins.discovery import in_order

        return [each.record() for each in in_order(self._registry.discovered, list(self))]

    @property
    def plugin_manager(self) -> pluggy.PluginManager:
        """Return the pluggy manager, for tracing, monitoring, and registering observers."""
        return self._registry.plugin_manager

    # -- the mapping ---------------------------------------------------------

    @overload
    def __getitem__(self, kind: type[P]) -> P: ...
    @overload
    def __getitem__(self, kind: str) -> Any: ...
    def __getitem__(self, kind: str | type[P]) -> Any:
        """Return the plugin of a kind, or the one plugin of a class, which checkers know then.

        Raises UnknownKindError if there is none, LookupError if several are of the class.
        """
        if isinstance(kind, str):
            if (registered := self._registry.get(kind)) is not None:
                return registered.plugin
            raise self._registry.unknown(kind)
        found = self._of_class(kind)
        if not found:
            raise self._registry.unknown_class(kind)
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
        """Return True, although a mapping is false while it is empty."""
        return True

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def registered_types(self) -> list[str]:
        """Return all kinds, in cleanup order. Raises as `check_pending`."""
        self.check_pending()
        return self._registry.order()

    def resource_count(self) -> int:
        """Return how many kinds of resource are registered."""
        return len(self)

    def validate_coverage(self, expected: Iterable[str]) -> list[str]:
        """Return the kinds in `expected` that no plugin serves, and warn of each.

        For applications that must not start without a kind. Raises TypeError for a bare string.
        """
        if isinstance(expected, str):
            raise TypeError(f"expected must be a collection of kinds, got the string {expected!r}")
        missing = [kind for kind in expected if kind not in self]
        for kind in missing:
            why = self._registry.why_missing(kind)
            message = f"kind {kind!r} has no plugin: its resources would leak"
            message += f" ({why})" if why else ""
            warnings.warn(message, MissingKindWarning, stacklevel=2)
        return missing

    # -- one pid -------------------------------------------------------------

    def has_resources(self, pid: int) -> bool:
        """Tell whether `pid` owns anything of any kind; True if a plugin fails to answer."""
        return bool(self._kinds_in_use(pid))

    def usage(self, pid: int) -> dict[str, ResourceUsage]:
        """Return what `pid` owns, by kind, in cleanup order, without kinds it owns nothing of."""
        return {kind.kind: kind.usage_of(pid) for kind in self._kinds_in_use(pid)}

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

        With `release`, for what no kind knows, it is released by `release(resource)`, or by
        `release()` for a method of the object itself. A coroutine function runs on the event loop
        that runs here now, or on a new one (kind `callbacks`).

        Raises UnadoptableError if no kind takes it, AlreadyOwnedError if it has an owner,
        ProcessTerminatedError, ProcessNotFoundError, ResourceLimitExceeded.
        """
        self._registry.admission.check(pid := checked_pid(pid))
        if release is not None or type(resource) is not int:
            # A number may have been given out anew: its own kind can tell.
            self._check_unowned(resource)
        if release is not None:
            resource = Callback.releasing(resource, release)
        elif isinstance(resource, (weakref.ReferenceType, *weakref.ProxyTypes)):
            why = "a weak reference keeps nothing alive: adopt what it refers to"
            raise UnadoptableError(resource, self._registry.asked(), refusals=[why])
        errors: list[Exception] = []
        for kind in self._registry.frozen():
            try:
                resource_id: ResourceId | None = kind.adopt(pid=pid, resource=resource)
            except ProbateError:
                # A kind that knows the object refuses it; no other is asked.
                raise
            except Exception as error:
                error.add_note(f"raised by adopt() of plugin {kind.kind!r}")
                errors.append(error)
            else:
                if resource_id is not None:
                    return resource_id
        unadoptable = UnadoptableError(
            resource,
            self._registry.asked(),
            refusals=[safe_repr(error, str) for error in errors if isinstance(error, ValueError)],
            is_callback=isinstance(resource, Callback),
        )
        if errors:
            raise unadoptable from ExceptionGroup("some plugins failed to look at it", errors)
        raise unadoptable

    def give_back(self, pid: int, thing: object) -> Outcome:
        """Release now what `pid` owns: an object, or the id that `adopt` returned (any int).

        What is BUSY or TIMEOUT stays owned. Raises NotOwnedError if `pid` does not own it, and
        what its release raises.
        """
        table, resource_id = self._find(pid, thing)
        return table.give_back_id(pid, resource_id)

    async def give_back_async(self, pid: int, thing: object) -> Outcome:
        """As `give_back`, without blocking the event loop, which a coroutine function may need."""
        return await asyncio.to_thread(self.give_back, pid, thing)

    def disown(self, pid: int, thing: object) -> None:
        """Forget what `pid` owns, an object or an id, without releasing it: it is the caller's.

        Raises NotOwnedError if `pid` does not own it.
        """
        table, resource_id = self._find(pid, thing)
        table.release(pid, resource_id)

    def transfer(self, pid: int, resource: object, to: int) -> ResourceId:
        """Make `to` the owner of a native object that `pid` owns; return its id, which it keeps.

        Raises NotOwnedError if `pid` does not own it; and, `pid` owning it still,
        ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded if `to` may not.
        """
        to = checked_pid(to)
        table, resource_id = self._find(pid, resource, ints_are_ids=False)
        table.transfer(pid, resource_id, to)
        return resource_id

    def observe(self, os_pid: int) -> list[ResourceRecord]:
        """Tell what a live OS process holds, of every kind, seen from outside: for reports.

        Raises ProcessLookupError if it is gone, PermissionError if it may not be looked into.
        """
        from probate.plugins.observing import observed

        return observed(self._registry, checked_pid(os_pid))

    def cleanup_process(
        self,
        pid: int,
        *,
        grace: float = DEFAULT_GRACE,
        deadline: float | None = DEFAULT_DEADLINE,
    ) -> CleanupResult:
        """Release all that `pid` owns, of every kind; return the account.

        `grace` is how many seconds the users of the resources get to stop, 0 for none; `deadline`
        how many seconds from now nothing more is retried and a hook that hangs is left behind,
        None for never. Until it returns, `pid` can acquire nothing. Calling it again is no harm.

        Raises ValueError for what is no number of seconds.
        Whatever falls in from outside - Ctrl-C, an exception that a signal handler raises - ends
        the grace, and is raised when all is released.
        """
        termination = self._termination(pid, deadline)
        steps = self._steps(termination, checked_seconds("grace", grace))
        ended = run_through(steps, lambda: self._steps(termination, 0))
        return ended.unwrap(termination.interrupt)

    async def cleanup_process_async(
        self,
        pid: int,
        *,
        grace: float = DEFAULT_GRACE,
        deadline: float | None = DEFAULT_DEADLINE,
    ) -> CleanupResult:
        """Release all that `pid` owns, as `cleanup_process`, without blocking the event loop.

        A cancellation ends the grace, and is raised when all is released.
        """
        termination = self._termination(pid, deadline)
        steps = self._steps(termination, checked_seconds("grace", grace))
        return (await run_async(steps)).unwrap(termination.interrupt)

    # -- inside --------------------------------------------------------------

    def _termination(self, pid: int, deadline: float | None) -> Termination:
        from probate.termination.steps import Termination

        if deadline is not None:
            checked_seconds("deadline", deadline)
        return Termination(checked_pid(pid), self._registry, deadline=deadline)

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
        self, pid: int, thing: object, *, ints_are_ids: bool = True
    ) -> tuple[OwnershipTable[Any], ResourceId]:
        """Find the table in which `pid` owns an object. Raises NotOwnedError."""
        pid = checked_pid(pid)
        is_id = ints_are_ids and type(thing) is int
        for table in self._tables():
            found = table.id_if_owned(pid, thing) if is_id else table.find_if_owned(pid, thing)
            if found is not None:
                if is_id and any(each.owner_of(thing) == pid for each in self._tables()):
                    raise ValueError(
                        f"{thing} is both an id and a number that process {pid} owns: give back "
                        "the number by the id that its adoption returned, or by its own kind"
                    )
                return table, found
        raise self._refusal(pid, thing, is_id=is_id)

    def _refusal(self, pid: int, thing: object, *, is_id: bool) -> NotOwnedError:
        refusal: NotOwnedError | None = None
        for table in self._tables():
            try:
                if is_id:
                    table.get(pid, thing)  # type: ignore[arg-type]  # an int, as ids are
                else:
                    table.find(pid, thing)
            except NotOwnedError as error:
                # The table that knows another owner has the error that says more.
                refusal = error if error.owner is not None or refusal is None else refusal
        return refusal or NotOwnedError("no kind", pid, safe_repr(thing))

    def _kinds_in_use(self, pid: int) -> list[RegisteredKind]:
        kinds_in_use = self._registry.kinds_in_use(checked_pid(pid))
        if kinds_in_use.interrupt is not None:
            raise kinds_in_use.interrupt
        return kinds_in_use.kinds

    def _steps(
        self, termination: Termination, grace: float
    ) -> Generator[Wait, None, CleanupResult]:
        with self._registry.admission.refuse_while(termination.pid):
            yield from termination.quiesce(grace)
            if grace and termination.futures:
                yield termination.grace(grace)
            return (yield from termination.release_all())


def _import_termination() -> None:
    # Before anything can be owned: later there may be no descriptor left to import it with.
    import probate.termination.steps  # noqa: F401


def registry_of(orchestrator: ResourceOrchestrator) -> PluginRegistry:
    """Return the registry of an orchestrator: for the process manager alone."""
    return orchestrator._registry  # noqa: SLF001  its own, in its own module
