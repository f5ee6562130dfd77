"""What bookkeeping costs: an empty termination, tracking one resource, bytes per resource."""

from __future__ import annotations

import gc
import time
import tracemalloc
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pluggy
from measure import Row, compare, loop, no_collector

from probate import OwnershipTable, ProcessManager, ResourceOrchestrator
from probate.ownership.admission import Admission

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBER: Final = 2000
TRACKED: Final = 10_000
KINDS: Final = 11


class Thing:
    """A resource that costs nothing itself; weakref.finalize wants it referable."""

    __slots__ = ("__weakref__",)


# -- tracking ------------------------------------------------------------------


def tracking() -> list[Row]:
    """Track and release one resource, with the admission that every managed table has."""
    table: OwnershipTable[Thing] = OwnershipTable("things")
    admission = Admission()
    table.wire("things", admission)
    manager = Thing()
    admission.claim(manager, after=0, record_sites=False)
    only, wealthy = admission.issue(None), admission.issue(None)
    table.add(wealthy, Thing())
    thing = Thing()

    def track(pid: int) -> Callable[[], object]:
        return lambda: table.release(pid, table.add(pid, thing))

    def exit_stack() -> None:
        with ExitStack() as stack:
            stack.callback(id, thing)
            stack.pop_all()

    def finalize() -> None:
        weakref.finalize(thing, id, None).detach()

    # Before the bound that is reached at 1.0.
    faster = 0.999
    return [
        compare(what, loop(track(pid), NUMBER), peer, loop(theirs, NUMBER), target=faster)
        for what, pid in (
            ("track + release one resource, the only one", only),
            ("track + release one resource, beside others", wealthy),
        )
        for peer, theirs in (
            ("ExitStack.callback + pop_all", exit_stack),
            ("weakref.finalize + detach", finalize),
        )
    ]


# -- terminations that find nothing ----------------------------------------------


class _Specification:
    @pluggy.HookspecMarker("peer")
    def has_resources(self, pid: int) -> bool:
        """Whether `pid` owns anything."""
        raise NotImplementedError


class _Peer:
    """As little as a plugin can be."""

    def __init__(self) -> None:
        self._owned: dict[int, object] = {}

    @pluggy.HookimplMarker("peer")
    def has_resources(self, pid: int) -> bool:
        """Look it up."""
        return pid in self._owned


def terminations() -> list[Row]:
    """End a process that owns nothing, ten kinds installed."""
    peers = [_Peer() for _ in range(KINDS)]
    plugins = pluggy.PluginManager("peer")
    plugins.add_hookspecs(_Specification)
    for peer in peers:
        plugins.register(peer)
    broadcast = plugins.hook.has_resources
    orchestrator = ResourceOrchestrator().discover()
    assert len(orchestrator) == KINDS, orchestrator
    with ProcessManager.builder().with_resource_orchestrator(orchestrator).build() as manager:

        def terminate() -> float:
            pids = [manager.create_process("idle").pid for _ in range(NUMBER)]
            with no_collector():
                started = time.perf_counter()
                for pid in pids:
                    manager.terminate_process(pid)
                return (time.perf_counter() - started) / NUMBER

        def ask_each() -> None:
            for peer in peers:
                peer.has_resources(7)

        what = f"terminate what owns nothing, {KINDS} kinds"
        call = loop(lambda: broadcast(pid=7), NUMBER)
        return [
            compare(what, terminate, f"a broadcast call over {KINDS} plugins", call, target=2.0),
            compare(what, terminate, f"{KINDS} `pid in dict` in methods", loop(ask_each, NUMBER)),
        ]


# -- memory --------------------------------------------------------------------


def bytes_each(track: Callable[[list[Thing]], object]) -> float:
    """Bytes that tracking takes, for each of `TRACKED` things, beyond the things."""
    things = [Thing() for _ in range(TRACKED)]
    gc.collect()
    tracemalloc.start()
    kept = track(things)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return size / TRACKED


def memory() -> list[Row]:
    """Bytes per tracked resource, without limits and leak sites."""

    def table(things: list[Thing]) -> object:
        made: OwnershipTable[Thing] = OwnershipTable("things")
        for thing in things:
            made.add(1, thing)
        return made

    def indexed(things: list[Thing]) -> object:
        made: OwnershipTable[Thing] = OwnershipTable("things", identity=lambda thing: thing)
        for thing in things:
            made.add(1, thing)
        return made

    def one_each(things: list[Thing]) -> object:
        made: OwnershipTable[Thing] = OwnershipTable("things")
        for pid, thing in enumerate(things, 1000):
            made.add(pid, thing)
        return made

    def stack(things: list[Thing]) -> object:
        made = ExitStack()
        for thing in things:
            made.callback(id, thing)
        return made.pop_all()

    def finalizers(things: list[Thing]) -> object:
        made = [weakref.finalize(thing, id, None) for thing in things]
        for each in made:
            each.atexit = False
        return made

    ours = bytes_each(table)
    bound = 100
    entry = bytes_each(lambda things: dict(enumerate(things, 1000)))
    return [
        _in_bytes("memory per tracked resource", ours, "100 B", bound, target=1.0),
        _in_bytes("memory per tracked resource", ours, "ExitStack.callback", bytes_each(stack)),
        _in_bytes("memory per tracked resource", ours, "weakref.finalize", bytes_each(finalizers)),
        _in_bytes("memory per tracked resource", ours, "a dict entry", entry),
        _in_bytes("the same, found by its object too", bytes_each(indexed), "100 B", bound),
        _in_bytes("the same, of an owner of one", bytes_each(one_each), "100 B", bound),
    ]


def _in_bytes(
    what: str, ours: float, peer: str, theirs: float, *, target: float | None = None
) -> Row:
    return Row(what, ours, peer, theirs, ours / theirs, target=target, unit="B")


def rows() -> list[Row]:
    """All rows of this module."""
    return [*tracking(), *terminations(), *memory()]
