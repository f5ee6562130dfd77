"""The tree of processes: what is owned ends before its owner, whoever ends it."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from functools import partial

import pytest
from core_threads import at_once, frequent_switches
from plugins_things import ThingResource, managed

from probate import (
    ProcessManager,
    ProcessNotFoundError,
    ProcessState,
    ProcessTerminatedError,
)


def block(entered: threading.Event, go_on: threading.Event) -> None:
    """A release that takes its time."""
    entered.set()
    go_on.wait(20)


def test_children_end_first_and_newest_first(plugin: ThingResource) -> None:
    """The whole tree: what is owned before its owner, the younger before the older."""
    with managed(plugin) as manager:
        pids: dict[str, int] = {}
        for name in ("root", "root/a", "root/b", "root/a/x", "root/a/y", "root/b/z", "other"):
            parent = pids.get(name.rpartition("/")[0])
            pids[name] = manager.create_process(name, parent=parent).pid
            plugin.give(pids[name], name)
        manager.terminate_process(pids["root"])
        released = [line[8:] for line in plugin.log if line.startswith("release")]

        assert released == ["root/b/z", "root/b", "root/a/y", "root/a/x", "root/a", "root"]
        assert [info.name for info in manager.list_processes()] == ["other"]


def test_all_of_a_tree_is_quiesced_before_any_is_cleaned(plugin: ThingResource) -> None:
    """And a child's account is its own."""
    with managed(plugin) as manager:
        parent = manager.create_process("parent")
        children = [manager.create_process("child", parent=parent.pid) for _ in range(2)]
        for process in (parent, *children):
            plugin.give(process.pid)
        result = parent.terminate()

        assert plugin.log[:3] == ["quiesce things"] * 3
        assert result.stats.resources_freed == 1
        assert [child.result and child.result.stats.resources_freed for child in children] == [1, 1]


def test_the_grace_is_shared_by_the_tree(plugin: ThingResource) -> None:
    """Ten processes whose users never stop cost one grace."""
    with managed(plugin) as manager:
        parent = manager.create_process("parent")
        pids = [manager.create_process("child", parent=parent.pid).pid for _ in range(9)]
        for pid in (parent.pid, *pids):
            plugin.give(pid)
        plugin.futures.append(concurrent.futures.Future())
        began = time.monotonic()
        manager.terminate_process(parent.pid, grace=0.3)

        assert 0.3 <= time.monotonic() - began < 1.5


def test_a_deep_tree_is_no_recursion(plugin: ThingResource) -> None:
    """Two thousand generations end in one go."""
    with managed(plugin) as manager:
        parent = None
        for _ in range(2000):
            parent = manager.create_process("generation", parent=parent).pid

    assert manager.list_processes() == []


def test_a_child_created_while_its_parent_ends_is_refused_or_ends_too(
    plugin: ThingResource,
) -> None:
    """Nobody is left over, whichever thread was quicker."""
    with managed(plugin) as manager, frequent_switches():
        for _ in range(50):
            parent = manager.create_process("parent").pid

            def create(parent: int = parent) -> None:
                for _ in range(20):
                    plugin.give(manager.create_process("child", parent=parent).pid)

            first, second, _ = at_once([create, create, partial(manager.terminate_process, parent)])

            assert isinstance(first, ProcessTerminatedError | None)
            assert isinstance(second, ProcessTerminatedError | None)
            assert manager.list_processes() == []
            assert plugin.table.pids() == []


def test_a_terminating_parent_refuses_children(
    manager: ProcessManager, plugin: ThingResource
) -> None:
    """From its own cleanup, and ever after."""
    parent = manager.create_process("parent")
    plugin.give(
        parent.pid, "mother", lambda: manager.create_process("child", parent=parent.pid).pid
    )
    result = parent.terminate()

    assert [e.message.split(":")[0] for e in result.errors] == ["ProcessTerminatedError"]
    with pytest.raises(ProcessTerminatedError):
        manager.create_process("child", parent=parent.pid)


def test_the_parent_waits_for_a_child_that_another_thread_ends() -> None:
    """Owned processes first, also without grace: the parent's things outlive the child's."""
    plugin = ThingResource()
    with managed(plugin) as manager:
        parent = manager.create_process("parent")
        child = manager.create_process("child", parent=parent.pid)
        entered, go_on = threading.Event(), threading.Event()
        plugin.give(parent.pid, "parents")
        plugin.give(child.pid, "childs", partial(block, entered, go_on))
        threads = [threading.Thread(target=each.terminate) for each in (child, parent)]
        threads[0].start()
        entered.wait(5)
        threads[1].start()
        threads[1].join(0.2)
        parents_state_meanwhile = parent.state
        go_on.set()
        for thread in threads:
            thread.join(5)

        assert parents_state_meanwhile is ProcessState.TERMINATING
        assert [line for line in plugin.log if line.startswith("release")] == [
            "release childs", "release parents",
        ]  # fmt: skip


def test_close_waits_for_what_another_thread_ends() -> None:
    """Leaving a manager terminates all: when it returns, all is terminated."""
    plugin = ThingResource()
    manager = managed(plugin)
    process = manager.create_process("p")
    entered, go_on = threading.Event(), threading.Event()
    plugin.give(process.pid, "slow", partial(block, entered, go_on))
    thread = threading.Thread(target=process.terminate)
    thread.start()
    entered.wait(5)
    threading.Timer(0.1, go_on.set).start()
    manager.close()
    state = process.state
    thread.join(5)

    assert state is ProcessState.TERMINATED


def test_a_process_stands_for_its_pid(manager: ProcessManager) -> None:
    """By object or by number it is the same one: as a parent, to terminate, to wait for."""
    parent = manager.create_process("parent")
    children = [manager.create_process("child", each) for each in (parent, parent.pid)]
    result = manager.terminate_process(parent)

    assert [child.state for child in children] == [ProcessState.TERMINATED] * 2
    assert manager.get(parent) is parent
    assert manager.wait(parent) is manager.wait(parent.pid) is result


def test_a_process_of_another_manager_is_not_taken_for_ones_own(manager: ProcessManager) -> None:
    """Two managers both issue pid 1: the other's process is not found, and its namesake lives."""
    own = manager.create_process("own")
    with managed(ThingResource()) as other:
        foreign = other.create_process("foreign")

        assert foreign.pid == own.pid
        for call in (manager.terminate_process, manager.wait, manager.get):
            with pytest.raises(ProcessNotFoundError):
                call(foreign)
        with pytest.raises(ProcessNotFoundError):
            manager.create_process("child", parent=foreign)
    assert own.state is ProcessState.RUNNING
