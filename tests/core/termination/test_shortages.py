"""No stack or no memory left, at any moment of an end: nothing strands, and the account knows."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest
from plugins_things import InlineThingResource, ThingResource, managed

from probate import ProcessState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 400


@pytest.fixture
def shallow() -> Iterator[None]:
    """A stack that is soon used up."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(LIMIT)
    yield
    sys.setrecursionlimit(before)


def at_depth(depth: int, function: Callable[[], object]) -> object:
    return at_depth(depth - 1, function) if depth else function()


@pytest.mark.usefixtures("shallow")
def test_a_recursion_error_at_every_depth() -> None:
    """Wherever the stack is used up, what had begun comes to its end, on another stack."""
    plugins = InlineThingResource("inline"), ThingResource("watched")
    ended, refused = 0, 0
    with managed(*plugins, grace=0, deadline=10) as manager:
        for depth in range(LIMIT // 2, LIMIT):
            process = manager.create_process("p")
            things = [each.give(process.pid) for each in plugins for _ in range(3)]
            try:
                at_depth(depth, process.terminate)
            except RecursionError:
                if process.state is ProcessState.TERMINATED:
                    ended += 1
                else:
                    # There was no room to begin, or to go on elsewhere: the next to ask does.
                    refused += 1
                    process.terminate()

            assert process.result is not None
            assert process.result.is_success
            assert {thing.releases for thing in things} == {1}
            assert not manager.orchestrator.has_resources(process.pid)
    assert ended > 3
    assert refused > 3


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="this Python itself dies of failed allocations"
)
def test_a_memory_error_at_every_allocation() -> None:
    """Whichever of the interpreter's allocations fails, all is tried once; what failed is told."""
    testcapi: Any = pytest.importorskip("_testcapi", reason="this Python lacks _testcapi")
    plugin = InlineThingResource("inline")
    raised, unharmed = 0, 0
    with managed(plugin, grace=0, deadline=10) as manager:
        for number in range(400):
            process = manager.create_process("p")
            things = [plugin.give(process.pid) for _ in range(3)]
            # So that it does not fail in what others have called at each collection.
            gc.disable()
            try:
                testcapi.set_nomemory(number, number + 1)
                try:
                    process.terminate()
                finally:
                    testcapi.remove_mem_hooks()
                    gc.enable()
            except MemoryError:
                raised += 1
                if process.state is not ProcessState.TERMINATED:
                    assert process.state is ProcessState.RUNNING
                    process.terminate()
            result = process.result

            assert result is not None
            unharmed += result.is_success
            failed = [thing.releases for thing in things].count(0)
            assert len([error for error in result.errors if error.resource == "thing"]) >= failed
            assert max(thing.releases for thing in things) == 1
            assert not manager.orchestrator.has_resources(process.pid)
    assert raised > 10
    assert unharmed > 100
