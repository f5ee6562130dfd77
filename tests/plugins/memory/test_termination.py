"""Terminations: sync and async, twice, racing with acquisitions, forked; limits; the driver."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from children import exit_code_of_fork
from memory_driver import drivers
from memory_kernel import (
    buffer_of,
    descriptors_of,
    said,
    script,
    shm_names,
    sysv_segments,
)
from threads import in_thread

from probate import (
    CleanupStats,
    NotOwnedError,
    ProcessError,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
    ResourceOrchestrator,
)
from probate.testing import KernelView

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ProcessManager
    from probate_memory import MemoryManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

DRIVERS = ["allocation", "shared memory", "adopted shared memory", "segment", "adopted segment"]


def _one_of_each(memory: MemoryManager, pid: int) -> None:
    memory.allocate(pid, 100)
    shm = memory.create_shared_memory(pid, size=100)
    memory.open_shared_memory(pid, shm.name)
    segment = memory.create_segment(pid, 100)
    memory.open_segment(pid, segment.id)


@pytest.mark.parametrize("is_async", [False, True])
def test_everything_goes_in_one_termination(
    manager: ProcessManager,
    memory: MemoryManager,
    remaining: Callable[[], set[str | int]],
    is_async: bool,
) -> None:
    """Newest first, so that a process's own users leave before its segments are removed."""
    process = manager.create_process("all")
    _one_of_each(memory, process.pid)
    usage = manager.orchestrator.usage(process.pid)["memory"]

    assert (usage.count, usage.nbytes) == (5, 300)
    assert "allocation of 100 bytes" in usage.resources[0].description

    if is_async:
        result = asyncio.run(manager.terminate_process_async(process.pid))
    else:
        result = manager.terminate_process(process.pid)

    assert str(result) == (
        f"PID {process.pid} cleanup: 5 resources freed, 300 bytes freed, 0 errors"
    )
    assert remaining() == set()


def test_a_second_cleanup_finds_nothing(manager: ProcessManager, memory: MemoryManager) -> None:
    """Idempotent: what is released is released once."""
    process = manager.create_process("twice")
    _one_of_each(memory, process.pid)
    orchestrator = manager.orchestrator

    assert orchestrator.cleanup_process(process.pid).stats.resources_freed == 5

    again = orchestrator.cleanup_process(process.pid).stats

    assert again.model_copy(update={"duration_seconds": 0}) == CleanupStats()


def test_nothing_to_free(manager: ProcessManager) -> None:
    """A process without memory has an empty account."""
    stats = manager.terminate_process(manager.create_process("idle").pid).stats

    assert stats.model_copy(update={"duration_seconds": 0}) == CleanupStats()


def test_a_process_that_ends_normally_has_its_leaks_listed(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """Named and sized, and released all the same."""
    with manager.process("leaky") as process:
        memory.allocate(77)
    result = process.terminate()

    assert [leak.resource.nbytes for leak in result.leaks] == [77]


@pytest.mark.parametrize("method", ["allocate", "create_shared_memory", "create_segment"])
def test_limits_refuse_before_anything_is_acquired(
    manager: ProcessManager,
    memory: MemoryManager,
    remaining: Callable[[], set[str | int]],
    method: str,
) -> None:
    """By bytes and by count; no segment appears that the limit refuses."""
    limits = ResourceLimits(by_kind={"memory": {"max_bytes": 1000, "max_count": 2}})  # type: ignore[dict-item]  # as from a file
    process = manager.create_process("limited", limits=limits)
    makers: dict[str, Callable[[int], Any]] = {
        "allocate": lambda size: memory.allocate(process.pid, size),
        "create_shared_memory": lambda size: memory.create_shared_memory(process.pid, size=size),
        "create_segment": lambda size: memory.create_segment(process.pid, size),
    }
    block = memory.allocate(process.pid, 600)

    with pytest.raises(ResourceLimitExceeded, match="at most 1000 bytes"):
        makers[method](401)
    assert remaining() == set()

    makers[method](400)
    with pytest.raises(ResourceLimitExceeded, match="at most 2 resources"):
        memory.allocate(process.pid, 1)

    memory.free(process.pid, block)
    memory.allocate(process.pid, 600)
    assert memory.peak(process.pid) == 1000


def test_a_terminated_owner_gets_nothing(
    manager: ProcessManager, memory: MemoryManager, remaining: Callable[[], set[str | int]]
) -> None:
    """Late registration for a terminated pid leaked for ever: it is refused."""
    process = manager.create_process("dead")
    manager.terminate_process(process.pid)

    for make in (
        lambda: memory.allocate(process.pid, 1),
        lambda: memory.create_shared_memory(process.pid, size=1),
        lambda: memory.create_segment(process.pid, 1),
    ):
        with pytest.raises(ProcessTerminatedError):
            make()
    assert remaining() == set()


@pytest.mark.parametrize("name", DRIVERS)
def test_acquisitions_race_a_termination(
    manager: ProcessManager, remaining: Callable[[], set[str | int]], name: str
) -> None:
    """Either it is owned, and freed by the termination, or it is refused; never anything else."""
    driver = drivers(manager.orchestrator)[name]
    refused = 0
    for _ in range(50):
        process = manager.create_process("race")
        driver.make(process.pid)
        barrier = threading.Barrier(3)

        def acquire(pid: int = process.pid, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            for _ in range(100):
                driver.make(pid)

        threads = [in_thread(acquire) for _ in range(2)]
        barrier.wait()
        result = manager.terminate_process(process.pid)
        for thread, outcome in threads:
            thread.join(10)
            refused += isinstance(outcome[0], ProcessError)
            assert outcome[0] is None or isinstance(outcome[0], (ProcessError, TypeError))

        assert result.is_success, result.errors
        assert not manager.orchestrator.has_resources(process.pid)
    assert refused
    assert remaining() == set()


@pytest.mark.parametrize("name", DRIVERS)
def test_giving_back_races_a_termination(
    manager: ProcessManager, remaining: Callable[[], set[str | int]], name: str
) -> None:
    """Each is released once, by one of the two: no descriptor is closed twice."""
    driver = drivers(manager.orchestrator)[name]
    for _ in range(50):
        process = manager.create_process("race")
        natives = [driver.make(process.pid) for _ in range(4)]
        barrier = threading.Barrier(2)

        def give_back(
            pid: int = process.pid,
            natives: list[Any] = natives,
            barrier: threading.Barrier = barrier,
        ) -> None:
            barrier.wait()
            for native in natives:
                driver.give_back(pid, native)

        thread, outcome = in_thread(give_back)
        barrier.wait()
        result = manager.terminate_process(process.pid)
        thread.join(10)

        assert outcome[0] is None or isinstance(outcome[0], (ProcessError, NotOwnedError))
        assert result.is_success, result.errors
    assert remaining() == set()


@pytest.mark.parametrize("name", DRIVERS)
def test_drivers_leave_nothing(name: str, remaining: Callable[[], set[str | int]]) -> None:
    """Made and given back, made and closed natively, made and terminated: the kernel agrees."""
    orchestrator = ResourceOrchestrator().discover(only=["memory"])
    driver = drivers(orchestrator)[name]
    gc.collect()
    before = KernelView.take()
    for pid in range(1, 21):
        driver.give_back(pid, driver.make(pid))
        driver.make(pid)
        closed = 0
        if driver.close is not None:
            driver.close(driver.make(pid))
            closed = 1

        assert orchestrator.usage(pid)["memory"].count == 1 + closed
        assert orchestrator.cleanup_process(pid).stats.by_type == {"memory": 1}
    gc.collect()

    assert before.changes() == []
    assert remaining() == set()


def test_a_forked_child_owns_nothing(manager: ProcessManager, memory: MemoryManager) -> None:
    """Its end, with or without a cleanup of the parent's pid, leaves the parent's memory be."""
    process = manager.create_process("parent")
    block = memory.allocate(process.pid, 10)
    shm = memory.create_shared_memory(process.pid, size=10)
    segment = memory.create_segment(process.pid, 10)
    block[0] = 7

    def child() -> None:
        assert process.pid not in memory.table
        assert memory._peaks._highest == {}
        assert memory.cleanup(process.pid).resources_freed == 0
        gc.collect()
        assert (block[0], buffer_of(shm)[0]) == (7, 0)

    assert exit_code_of_fork(child) == 0
    assert shm.name in shm_names()
    assert sysv_segments()[segment.id].attaches == 1
    assert manager.terminate_process(process.pid).stats.resources_freed == 3


def test_a_child_that_is_attached_keeps_a_segment(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """A fork inherits attaches (shmat(2)): while the child lives the segment is in use."""
    process = manager.create_process("parent")
    segment = memory.create_segment(process.pid, 10)
    # An interpreter in between: forking with threads around is asking for trouble.
    with script(
        """
        segment = memory.open_segment(pid, int(sys.argv[1]))
        child = os.fork()
        if child == 0:
            signal.pause()
        say(child)
        memory.close(pid, segment)
        say("detached")
        wait()
        """,
        str(segment.id),
    ) as other:
        child = int(said(other))
        assert said(other) == "detached"
        assert sysv_segments()[segment.id].attaches == 2

        result = manager.terminate_process(process.pid)
        os.kill(child, signal.SIGKILL)
        _, stderr = other.communicate("\n", 30)

    assert [str(error.outcome) for error in result.errors] == ["refused"]
    assert stderr == ""
    segment.remove()


def test_a_failure_to_unlink_is_an_error_and_the_rest_is_freed(
    manager: ProcessManager, memory: MemoryManager, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One failure never keeps the next from being tried; the map and descriptors are closed.

    By hand as well, where the caller has the error.
    """
    process = manager.create_process("owner")
    first = memory.create_shared_memory(process.pid, size=10)
    second = memory.create_shared_memory(process.pid, name, size=10)
    unlink = os.unlink

    def failing(path: str) -> None:
        if path.endswith(name):
            raise PermissionError(1, "Operation not permitted", path)
        unlink(path)

    by_hand = memory.create_shared_memory(process.pid, f"by-hand-{name}", size=10)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", failing)
        with pytest.raises(PermissionError):
            memory.close(process.pid, by_hand)
        result = manager.terminate_process(process.pid)
    for each in (second, by_hand):
        each.unlink()

    assert [(str(error.outcome), error.kind) for error in result.errors] == [("failed", "memory")]
    assert name in result.errors[0].message
    assert result.stats.resources_freed == 1
    assert first.name not in shm_names()
    assert [descriptors_of(each.name) for each in (second, by_hand)] == [0, 0]


def test_memory_is_cleaned_last(orchestrator: ResourceOrchestrator) -> None:
    """Memory freed, then rings and tasks touched it: memory last."""
    assert list(orchestrator)[-1] == "memory"
