"""A forked child owns nothing, cleans nothing, and is not held up by its parent's threads."""

from __future__ import annotations

import gc
import os
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from core_scripts import in_forked_child
from plugins_things import InlineThingResource, Thing, ThingResource, managed, orchestrate

from probate import OwnershipTable, ProcessManager, ProcessNotFoundError, ResourceLimits

if TYPE_CHECKING:
    from collections.abc import Callable

# From 3.12 on, os.fork() warns where there are several threads: these tests are about that.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def block(entered: threading.Event, go_on: threading.Event) -> None:
    """A release that takes its time."""
    entered.set()
    go_on.wait(20)


def test_a_child_owns_nothing() -> None:
    """Its tables are empty; the parent's are as they were."""
    plugin = ThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=3)) as manager:
        process = manager.create_process("p")
        thing = plugin.give(process.pid, nbytes=5)

        def child() -> object:
            result = manager.orchestrator.cleanup_process(process.pid)
            return (
                plugin.table.pids(),
                plugin.table.nbytes(process.pid),
                manager.list_processes(),
                result.stats.resources_freed,
                thing.releases,
            )

        assert in_forked_child(child) == "([], 0, [], 0, 0)"
        assert plugin.table.find(process.pid, thing)
        assert (thing.releases, plugin.table.nbytes(process.pid)) == (0, 5)


def test_a_child_has_a_life_of_its_own() -> None:
    """It may create processes, own and free; the parent's pids are not found in it."""
    plugin = ThingResource()
    with managed(plugin) as manager:
        parents = manager.create_process("p").pid

        def child() -> object:
            process = manager.create_process("childs")
            plugin.give(process.pid)
            try:
                manager.get(parents)
            except ProcessNotFoundError:
                return (process.pid != parents, process.terminate().stats.resources_freed)
            return None

        assert in_forked_child(child) == "(True, 1)"


def test_a_child_leaves_with_blocks_without_touching_the_parents_things(
    orchestrator: Any, manager: ProcessManager
) -> None:
    """Forked inside `with`, it unwinds through them; the parent's socket goes on accepting."""
    sockets = orchestrator["sockets"].manager
    with manager.process("server") as process:
        listener = sockets.listen_tcp(process.pid, ("127.0.0.1", 0))

        def child() -> object:
            process_scope = manager.process("childs")
            with process_scope as inner:
                sockets.bind_udp(inner.pid, ("127.0.0.1", 0))
            process.terminate()
            manager.close()
            gc.collect()
            return inner.result and inner.result.stats.resources_freed

        assert in_forked_child(child) == "1"

        with socket.create_connection(listener.getsockname(), timeout=5) as client:
            connection, _ = listener.accept()
            connection.sendall(b"alive")
            connection.close()

            assert client.recv(5) == b"alive"


def hold(lock: Any, entered: threading.Event, over: threading.Event) -> None:
    with lock:
        entered.set()
        over.wait(20)


@pytest.mark.parametrize(
    "find_lock",
    [
        lambda manager, plugin, pid: manager._lock,
        lambda manager, plugin, pid: manager._registry.admission._lock,
        lambda manager, plugin, pid: plugin.table._by_owner._transfer_lock,
        lambda manager, plugin, pid: plugin.table._by_owner.get(pid).lock,
        lambda manager, plugin, pid: manager.orchestrator._registry._lock,
    ],
    ids=["manager", "admission", "transfer", "holdings", "registry"],
)
def test_a_lock_that_a_thread_holds_at_the_fork_does_not_deadlock_the_child(
    find_lock: Callable[..., Any],
) -> None:
    """That thread does not exist in the child: every lock there is a new one."""
    plugin = ThingResource()
    manager = managed(plugin, limits=ResourceLimits(max_count=9))
    pid = manager.create_process("p").pid
    plugin.give(pid, nbytes=1)
    lock = find_lock(manager, plugin, pid)
    entered, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold, args=(lock, entered, over), daemon=True)
    thread.start()
    entered.wait(5)

    def child() -> object:
        manager.orchestrator.register(late := ThingResource("late"))
        first, second = (manager.create_process(name).pid for name in "ab")
        for each in (plugin, late):
            moved = each.table.add(first, Thing(), 1)
            each.table.transfer(first, moved, second)
        freed = manager.terminate_process(second).stats.resources_freed
        manager.close()
        return freed

    try:
        assert in_forked_child(child, timeout=5) == "2"
    finally:
        over.set()
        thread.join(5)
        manager.close()


def test_a_termination_that_a_thread_of_the_parent_is_in_does_not_hold_up_the_child() -> None:
    """Nobody will finish it in the child: whoever waits for it there is not left waiting."""
    plugin = ThingResource()
    manager = managed(plugin)
    scope = manager.process("p")
    process = scope.__enter__()
    entered, over = threading.Event(), threading.Event()
    plugin.give(process.pid, "slow", partial(block, entered, over))
    thread = threading.Thread(target=process.terminate)
    thread.start()
    entered.wait(5)

    def child() -> object:
        scope.__exit__(None, None, None)
        manager.close()
        return "left"

    try:
        assert in_forked_child(child, timeout=3) == "'left'"
    finally:
        over.set()
        thread.join(5)
        scope.__exit__(None, None, None)
        manager.close()

    assert process.result is not None
    assert process.result.stats.resources_freed == 1


def test_a_fork_in_mid_acquisition_leaves_both_sides_usable() -> None:
    """A `make` that forks and returns twice: the child is refused, the parent has its resource."""
    plugin = InlineThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=9, max_bytes=99)) as manager:
        pid = manager.create_process("p").pid
        reader, writer = os.pipe()
        children: list[int] = []

        def make() -> Thing:
            children.append(os.fork())
            return Thing()

        outcome = "acquired"
        try:
            plugin.table.acquire(pid, make, Thing.release, nbytes=1)
        except Exception as error:
            outcome = type(error).__name__
        if children == [0]:
            os.write(writer, outcome.encode())
            os._exit(0)
        os.waitpid(children[0], 0)
        of_child = os.read(reader, 100).decode()
        os.close(reader)
        os.close(writer)

        assert (of_child, outcome) == ("ProcessTerminatedError", "acquired")
        assert plugin.table.count(pid) == 1


class Finalised:
    """Tells when it is finalised, and where."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def __del__(self) -> None:
        self.notes.append("finalised")


def test_what_a_child_inherited_is_not_finalised_in_it() -> None:
    """A finaliser would act on what the parent still uses: the child keeps it, unused."""
    notes: list[str] = []
    table: OwnershipTable[Finalised] = OwnershipTable("things")
    table.add(1, Finalised(notes))

    def child() -> object:
        gc.collect()
        return (table.pids(), notes)

    assert in_forked_child(child) == "([], [])"
    assert notes == []

    table.cleanup(1, lambda _: None)


def test_dead_holders_are_not_remembered() -> None:
    """Tables, managers and orchestrators that are gone leave nothing to be called at a fork."""
    from probate.system.forking import _fork_aware

    gc.collect()
    before = len(_fork_aware)

    def come_and_go() -> None:
        with managed(ThingResource()) as manager:
            manager.create_process("p")
        orchestrate(ThingResource())

    for _ in range(50):
        come_and_go()
    gc.collect()

    assert len(_fork_aware) == before
