"""What holds for everything of this kind: arguments, limits, accounts, forks, the driver."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from ipc_driver import drivers
from ipc_peers import kernel_objects
from threads import in_thread

from probate import (
    CleanupStats,
    NotOwnedError,
    ProcessManager,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
    ResourceOrchestrator,
)
from probate.hookspecs import is_inline
from probate_ipc import IpcManager, IpcResource, PipeWriter, QueueClosedError

DRIVERS = sorted(drivers(ResourceOrchestrator().register(IpcResource(), "ipc")))

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def pid(manager: ProcessManager) -> int:
    """A process."""
    return manager.create_process("process").pid


def one_of_each(ipc: IpcManager, pid: int) -> list[Any]:
    """Everything that can be made without anything else."""
    topic = ipc.topic(pid)
    return [
        *ipc.pipe(pid),
        *ipc.connection_pair(pid),
        ipc.queue(pid, 1),
        ipc.priority_queue(pid, 1),
        topic,
        ipc.subscribe(pid, topic),
        ipc.posix_queue(pid),
        ipc.sysv_queue(pid),
        ipc.semaphore(pid),
        ipc.posix_semaphore(pid),
    ]


def test_everything_is_in_the_one_table(manager: ProcessManager, ipc: IpcManager, pid: int) -> None:
    """has_resources looked at messages only, so pipes, shm and queues leaked: each thing alone
    makes it true, and cleanup empties the same table.
    """
    for index, thing in enumerate(one_of_each(ipc, pid)):
        alone = manager.create_process(f"alone{index}").pid
        resource_id = ipc._table.find(pid, getattr(thing, "identity", thing))
        ipc._table.transfer(pid, resource_id, alone)

        assert manager.orchestrator.has_resources(alone)
        assert manager.terminate_process(alone).stats.by_type == {"ipc": 1}
        assert not manager.orchestrator.has_resources(alone)

    assert not manager.orchestrator.has_resources(pid)


def test_one_termination_frees_all_and_the_kernel_agrees(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """Twelve things, sync."""
    before = kernel_objects()
    things = one_of_each(ipc, pid)
    result = manager.terminate_process(pid)

    assert result.is_success
    assert result.stats.by_type == {"ipc": len(things)}
    assert all(thing.closed for thing in things)
    assert kernel_objects() == before


def test_one_termination_frees_all_on_a_loop(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """Async, with a task of that loop waiting, which is told."""

    async def scenario() -> tuple[int, object]:
        things = one_of_each(ipc, pid)
        waiting = asyncio.create_task(things[4].get_async())
        await asyncio.sleep(0)
        result = await manager.terminate_process_async(pid)
        done = await asyncio.gather(waiting, return_exceptions=True)
        return result.stats.resources_freed - len(things), done[0]

    difference, outcome = asyncio.run(scenario())

    assert difference == 0
    assert isinstance(outcome, QueueClosedError)


def test_a_second_cleanup_finds_nothing(manager: ProcessManager, ipc: IpcManager, pid: int) -> None:
    """Idempotent, and so is each thing's own end."""
    things = one_of_each(ipc, pid)
    ipc.cleanup(pid)

    assert ipc.cleanup(pid) == CleanupStats()

    for thing in things:
        ipc.close(pid, thing)
        thing.close()


def test_everything_closed_directly_is_already_gone_or_only_unlinked(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """Closing is no removal: what has a name or id in the system is still freed, by us."""
    for thing in one_of_each(ipc, pid):
        thing.close()
    result = manager.terminate_process(pid)

    assert result.is_success
    assert result.stats.resources_freed == 4


def test_everything_is_given_back_through_the_manager(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """As the owner's end would: names and ids go too; another's are refused."""
    before = kernel_objects()
    other = manager.create_process("other").pid
    for thing in one_of_each(ipc, pid):
        with pytest.raises(NotOwnedError):
            ipc.close(other, thing)
        ipc.close(pid, thing)
        ipc.close(pid, thing)

        assert thing.closed
    assert not ipc.owns_any(pid)
    assert kernel_objects() == before


def test_what_is_transferred_dies_with_its_new_owner(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """Neither closed nor counted with the old one."""
    heir = manager.create_process("heir").pid
    queue = ipc.sysv_queue(pid)
    ipc._table.transfer(pid, ipc._table.find(pid, queue.native), heir)

    assert manager.terminate_process(pid).stats.resources_freed == 0
    assert not queue.closed
    assert manager.terminate_process(heir).stats.resources_freed == 1
    assert queue.closed


def test_usage_tells_each_thing(ipc: IpcManager, manager: ProcessManager, pid: int) -> None:
    """A description each, and the bytes that may be taken up."""
    things = one_of_each(ipc, pid)
    usage = manager.orchestrator.usage(pid)["ipc"]
    text = "\n".join(info.description for info in usage.resources)

    assert usage.count == len(things)
    assert usage.nbytes >= 3 * 65536 + 10 * 8192
    for word in ("read end of pipe:", "connection socket:", "fifo queue", "topic", "SysV queue 0x"):
        assert word in text
    assert all(repr(thing) for thing in things)


def test_an_empty_process_has_an_empty_account(manager: ProcessManager, pid: int) -> None:
    """Nothing to free."""
    stats = manager.terminate_process(pid).stats

    assert stats.model_copy(update={"duration_seconds": 0}) == CleanupStats()


@pytest.mark.parametrize("method", ["pipe", "posix_queue", "sysv_queue", "semaphore", "topic"])
def test_a_count_limit_refuses_before_anything_is_acquired(
    manager: ProcessManager, ipc: IpcManager, method: str
) -> None:
    """Of a pipe too, whose second end would be one too many."""
    limits = ResourceLimits.model_validate({"by_kind": {"ipc": {"max_count": 1}}})
    limited = manager.create_process("limited", limits=limits).pid
    before = kernel_objects()
    if method != "pipe":
        getattr(ipc, method)(limited)
        before = kernel_objects()

    with pytest.raises(ResourceLimitExceeded, match="at most 1"):
        getattr(ipc, method)(limited)

    assert kernel_objects() == before


def test_message_memory_counts_against_the_byte_limit(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """What a queue may take up is reserved when it is made."""
    limits = ResourceLimits.model_validate({"by_kind": {"ipc": {"max_bytes": 1000}}})
    limited = manager.create_process("limited", limits=limits).pid
    queue = ipc.queue(limited, 10, max_bytes=600)
    for refused in (
        lambda: ipc.queue(limited, 10, max_bytes=600),
        lambda: ipc.posix_queue(limited, None, 10, 100),
        lambda: ipc.sysv_queue(limited),
    ):
        with pytest.raises(ResourceLimitExceeded):
            refused()
    ipc.close(limited, queue)
    ipc.posix_queue(limited, None, 10, 100)


@pytest.mark.parametrize(
    "method",
    ["pipe", "connection_pair", "topic", "posix_queue", "sysv_queue", "semaphore"],
)
def test_a_terminated_owner_gets_nothing(
    manager: ProcessManager, ipc: IpcManager, pid: int, method: str
) -> None:
    """Late registration for a terminated pid leaked for ever: it is refused."""
    manager.terminate_process(pid)

    with pytest.raises(ProcessTerminatedError):
        getattr(ipc, method)(pid)


def test_the_current_process_is_meant_where_no_pid_is_given(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """Within `with manager.process(...)`; it ends with the block."""
    with manager.process("current") as process:
        queue = ipc.queue(5)
        _, writer = ipc.pipe()
        ipc.close(queue)

        assert ipc.usage(process.pid).count == 2
    assert writer.closed


@pytest.mark.parametrize("name", DRIVERS)
def test_acquiring_races_termination(manager: ProcessManager, ipc: IpcManager, name: str) -> None:
    """Either it is owned and freed, or refused and nothing is left: the kernel has no more."""
    driver = drivers(manager.orchestrator)[name]
    before = kernel_objects()
    for _ in range(50):
        pid = manager.create_process("racing").pid
        start = threading.Barrier(2)

        def make(pid: int = pid, start: threading.Barrier = start) -> None:
            start.wait()
            while True:
                driver.make(pid)

        thread, outcome = in_thread(make)
        start.wait()
        result = manager.terminate_process(pid)
        thread.join(5)

        assert isinstance(outcome[0], (ProcessTerminatedError, NotOwnedError)), outcome
        assert result.is_success
        assert not ipc.owns_any(pid)
    assert kernel_objects() == before


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("end", ["give back", "close", "terminate"])
def test_the_driver_makes_one_thing_and_leaves_nothing(
    manager: ProcessManager, pid: int, name: str, end: str
) -> None:
    """What the state machine over all kinds relies on; /proc is the witness."""
    driver = drivers(manager.orchestrator)[name]
    before = kernel_objects()
    native = driver.make(pid)

    assert manager.orchestrator.usage(pid)["ipc"].count == 1

    freed = 1
    if end == "give back":
        driver.give_back(pid, native)
        freed = 0
    elif end == "close" and driver.close is not None:
        driver.close(native)
        freed = 0
    result = manager.terminate_process(pid)

    assert result.is_success
    assert result.stats.resources_freed == freed
    assert kernel_objects() == before


def test_a_forked_child_owns_nothing(manager: ProcessManager, ipc: IpcManager, pid: int) -> None:
    """It can neither free what is its parent's, nor wait in a queue that nobody there feeds; a
    pipe it can write to, as is the way of pipes.
    """
    things = one_of_each(ipc, pid)
    reader, writer, queue = things[0], things[1], things[4]
    before = kernel_objects()
    # A thread that waits in it is in the parent only.
    thread, outcome = in_thread(lambda: reader.read(64))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert isinstance(writer, PipeWriter)
            assert not ipc.owns_any(pid)
            assert ipc.cleanup(pid) == CleanupStats()
            with pytest.raises(QueueClosedError):
                queue.get()
            writer.write(b"from the child")
            writer.close()
            reader.close()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    thread.join(5)

    assert status == 0
    assert outcome == [b"from the child"]
    assert kernel_objects() == before
    assert manager.terminate_process(pid).stats.resources_freed == len(things)


def test_the_hooks_are_as_designed() -> None:
    """Priority 5; quiesce cannot block, and cleanup may for a moment."""
    manager = IpcManager()
    resource = IpcResource(manager)

    assert resource.manager is manager
    assert isinstance(IpcResource().manager, IpcManager)
    assert resource.ordering().priority == 5
    assert is_inline(IpcResource.quiesce)
    assert not is_inline(IpcResource.cleanup)


def test_the_installed_plugin_is_found() -> None:
    """By its entry point, as kind `ipc`."""
    orchestrator = ResourceOrchestrator().discover(only=["ipc"])

    assert isinstance(orchestrator["ipc"], IpcResource)
