"""Tiny resource plugins whose resources note in a log what becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probate import (
    CleanupStats,
    Ordering,
    Outcome,
    OwnershipTable,
    ProcessManager,
    ResourceId,
    ResourceKind,
    ResourceLimits,
    ResourceOrchestrator,
    hookimpl,
    runs_inline,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate.hookspecs import AnyFuture


class Thing:
    """A resource: how often it was released, and what its release does (None: comes free)."""

    def __init__(self, name: str = "thing", behave: Callable[[], object] | None = None) -> None:
        self.name = name
        self.behave = behave
        self.releases = 0

    def __repr__(self) -> str:
        return self.name

    def release(self) -> Any:
        self.releases += 1
        return None if self.behave is None else self.behave()


def raising(error: BaseException) -> Callable[[], object]:
    """A behaviour: raise this."""

    def behave() -> object:
        raise error

    return behave


def busy(times: int) -> Callable[[], Outcome]:
    """A behaviour: BUSY so many times, then RELEASED."""
    left = times

    def behave() -> Outcome:
        nonlocal left
        left -= 1
        return Outcome.RELEASED if left < 0 else Outcome.BUSY

    return behave


class ThingResource:
    """A whole plugin. `faults` replaces what a hook does; `log` tells who was called when."""

    def __init__(
        self,
        kind: str = "things",
        priority: int = 0,
        *,
        before: tuple[str, ...] = (),
        after: tuple[str, ...] = (),
        log: list[str] | None = None,
    ) -> None:
        self.kind = kind
        self.place = Ordering(priority, before, after)
        self.table: OwnershipTable[Thing] = OwnershipTable(kind)
        self.log: list[str] = [] if log is None else log
        self.futures: list[AnyFuture] = []
        self.faults: dict[str, Callable[[], object]] = {}

    def give(
        self,
        pid: int,
        name: str = "thing",
        behave: Callable[[], object] | None = None,
        *,
        nbytes: int = 0,
    ) -> Thing:
        """Have `pid` own a new thing."""
        thing = Thing(name, behave)
        self.table.add(pid, thing, nbytes)
        return thing

    def _faulty(self, hook: str) -> Any:
        return self.faults[hook]()

    @hookimpl
    def ordering(self) -> Ordering:
        return self.place

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        if "has_resources" in self.faults:
            return bool(self._faulty("has_resources"))
        return pid in self.table

    @hookimpl
    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        self.log.append(f"quiesce {self.kind}")
        if "quiesce" in self.faults:
            found: Iterable[AnyFuture] = self._faulty("quiesce")
            return found
        return self.futures

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        self.log.append(f"cleanup {self.kind}")
        if "cleanup" in self.faults:
            stats: CleanupStats = self._faulty("cleanup")
            return stats
        return self.table.cleanup(pid, self._release)

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.table.add(pid, resource) if isinstance(resource, Thing) else None

    def _release(self, thing: Thing) -> Any:
        self.log.append(f"release {thing.name}")
        return thing.release()


class InlineThingResource(ThingResource):
    """The same, on the terminating thread itself."""

    @hookimpl
    @runs_inline
    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        return super().quiesce(pid)

    @hookimpl
    @runs_inline
    def cleanup(self, pid: int) -> CleanupStats:
        return super().cleanup(pid)


class ComposedThingResource(ResourceKind):
    """The same, made of a table, a place and functions instead of marked hooks."""

    def __init__(
        self,
        kind: str = "things",
        priority: int = 0,
        *,
        before: tuple[str, ...] = (),
        after: tuple[str, ...] = (),
        log: list[str] | None = None,
    ) -> None:
        self.written_out = ThingResource(kind, priority, before=before, after=after, log=log)
        for name in ("kind", "log", "futures", "faults", "give"):
            setattr(self, name, getattr(self.written_out, name))
        super().__init__(
            self.written_out.table,
            self.written_out.place,
            quiesce=self.written_out.quiesce,
            adopt=self.written_out.adopt,
            cleanup=self.written_out.cleanup,
        )


#: The forms in which a plugin can be written, of which none may behave as another does not.
FORMS = [ThingResource, InlineThingResource, ComposedThingResource]


def orchestrate(*plugins: ThingResource) -> ResourceOrchestrator:
    """An orchestrator with these plugins and no others."""
    orchestrator = ResourceOrchestrator()
    for plugin in plugins:
        orchestrator.register(plugin)
    return orchestrator


def managed(
    *plugins: ThingResource,
    grace: float = 0,
    deadline: float | None = 10,
    limits: ResourceLimits | None = None,
) -> ProcessManager:
    """A manager over these plugins; it waits for nobody unless told to."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrate(*plugins))
    builder.with_grace(grace).with_deadline(deadline)
    if limits is not None:
        builder.with_limits(limits)
    return builder.build()
