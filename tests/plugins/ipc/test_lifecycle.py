"""What holds for everything of this kind: arguments, limits, accounts, forks, the driver."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from ipc_driver import drivers
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
from probate.hookspecs import runs_inline_for
from probate_ipc import IpcManager, IpcResource, PipeWriter, QueueClosedError

if TYPE_CHECKING:
    from ipc_kernel import MadeHere

DRIVERS = sorted(drivers(ResourceOrchestrator().register(IpcResource(), "ipc")))

pytestmark = pytest.mark.usefixtures("nothing_remains")


def one_of_each(ipc: IpcManager, pid: int) -> list[Any]:
    """Everything that can be made without anything else."""
    return [
        *ipc.pipe(pid),
        *ipc.connection_pair(pid),
        ipc.queue(pid, 1),
        ipc.create_posix_queue(pid),
        ipc.create_sysv_queue(pid),
        ipc.create_sysv_semaphore(pid),
        ipc.create_posix_semaphore(pid),
    ]


def test_everything_is_in_the_one_table(manager: ProcessManager, ipc: IpcManager, pid: int) -> None:
    """has_resources looked at messages only, so pipes, shm and queues leaked: each thing alone
    makes it true, and cleanup empties the same table.
    """
    for index, thing in enumerate(one_of_each(ipc, pid)):
        alone = manager.create_process(f"alone{index}").pid
        resource_id = ipc.table.find(pid, getattr(thing, "identity", thing))
        ipc.table.transfer(pid, resource_id, alone)

        assert manager.orchestrator.has_resources(alone)
        assert manager.terminate_process(alone).stats.by_type == {"ipc": 1}
        assert not manager.orchestrator.has_resources(alone)

    assert not manager.orchestrator.has_resources(pid)


def test_one_termination_frees_all_and_the_kernel_agrees(
    manager: ProcessManager, ipc: IpcManager, pid: int, made_here: MadeHere
) -> None:
    """Nine things, sync."""
    things = one_of_each(ipc, pid)
    result = manager.terminate_process(pid)

    assert result.is_success
    assert result.stats.by_type == {"ipc": len(things)}
    assert all(thing.closed for thing in things)
    assert made_here.remaining() == set()


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
    manager: ProcessManager, ipc: IpcManager, pid: int, made_here: MadeHere
) -> None:
    """As the owner's end would: names and ids go too; another's are refused."""
    other = manager.create_process("other").pid
    for thing in one_of_each(ipc, pid):
        with pytest.raises(NotOwnedError):
            ipc.close(other, thing)
        ipc.close(pid, thing)
        ipc.close(pid, thing)

        assert thing.closed
    assert pid not in ipc.table
    assert made_here.remaining() == set()


def test_what_is_transferred_dies_with_its_new_owner(
    manager: ProcessManager, ipc: IpcManager, pid: int
) -> None:
    """Neither closed nor counted with the old one."""
    heir = manager.create_process("heir").pid
    queue = ipc.create_sysv_queue(pid)
    ipc.table.transfer(pid, ipc.table.find(pid, queue.native), heir)

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
    assert usage.nbytes >= 65536 + 10 * 8192
    for word in ("read end of pipe:", "connection socket:", "fifo queue", "SysV queue 0x"):
        assert word in text
    assert all(repr(thing) for thing in things)


def test_an_empty_process_has_an_empty_account(manager: ProcessManager, pid: int) -> None:
    """Nothing to free."""
    stats = manager.terminate_process(pid).stats

    assert stats.model_copy(update={"duration_seconds": 0}) == CleanupStats()


@pytest.mark.parametrize(
    "method", ["pipe", "create_posix_queue", "create_sysv_queue", "create_posix_semaphore"]
)
def test_a_count_limit_refuses_before_anything_is_acquired(
    manager: ProcessManager, ipc: IpcManager, method: str, made_here: MadeHere
) -> None:
    """Of a pipe too, whose second end would be one too many."""
    limits = ResourceLimits.model_validate({"by_kind": {"ipc": {"max_count": 1}}})
    limited = manager.create_process("limited", limits=limits).pid
    if method != "pipe":
        getattr(ipc, method)(limited)

    with pytest.raises(ResourceLimitExceeded, match="at most 1"):
        getattr(ipc, method)(limited)

    assert len(made_here.remaining()) == ipc.table.count(limited) == (method != "pipe")


def test_message_memory_counts_against_the_byte_limit(
    manager: ProcessManager, ipc: IpcManager
) -> None:
    """What a queue may take up is reserved when it is made."""
    limits = ResourceLimits.model_validate({"by_kind": {"ipc": {"max_bytes": 1000}}})
    limited = manager.create_process("limited", limits=limits).pid
    queue = ipc.queue(limited, 10, max_bytes=600)
    for refused in (
        lambda: ipc.queue(limited, 10, max_bytes=600),
        lambda: ipc.create_posix_queue(limited, max_message_size=100),
        lambda: ipc.create_sysv_queue(limited),
    ):
        with pytest.raises(ResourceLimitExceeded):
            refused()
    ipc.close(limited, queue)
    ipc.create_posix_queue(limited, max_message_size=100)


@pytest.mark.parametrize(
    "method",
    ["pipe", "connection_pair", "create_posix_queue", "create_sysv_queue"],
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

        assert ipc.table.usage(process.pid).count == 2
    assert writer.closed


@pytest.mark.parametrize("name", DRIVERS)
def test_acquiring_races_termination(
    manager: ProcessManager, ipc: IpcManager, name: str, made_here: MadeHere
) -> None:
    """Either it is owned and freed, or refused and nothing is left: the kernel has no more."""
    driver = drivers(manager.orchestrator)[name]
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
        assert pid not in ipc.table
    assert made_here.remaining() == set()


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("end", ["give back", "close", "terminate"])
def test_the_driver_makes_one_thing_and_leaves_nothing(
    manager: ProcessManager, pid: int, name: str, end: str, made_here: MadeHere
) -> None:
    """What the state machine over all kinds relies on; /proc is the witness."""
    driver = drivers(manager.orchestrator)[name]
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
    assert made_here.remaining() == set()


def test_a_forked_child_owns_nothing(
    manager: ProcessManager, ipc: IpcManager, pid: int, made_here: MadeHere
) -> None:
    """It can neither free what is its parent's, nor wait in a queue that nobody there feeds; a
    pipe it can write to, as is the way of pipes.
    """
    things = one_of_each(ipc, pid)
    reader, writer, queue = things[0], things[1], things[4]
    queue.put("the parent's")
    in_the_kernel = made_here.remaining()
    # A thread that waits in it is in the parent only.
    thread, outcome = in_thread(lambda: reader.read(64))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert isinstance(writer, PipeWriter)
            assert pid not in ipc.table
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
    assert queue.get() == "the parent's"
    assert made_here.remaining() == in_the_kernel
    assert manager.terminate_process(pid).stats.resources_freed == len(things)


def test_the_hooks_are_as_designed() -> None:
    """Priority 5; quiesce cannot block, and cleanup may for a moment."""
    manager = IpcManager()
    resource = IpcResource(manager)

    assert resource.manager is manager
    assert isinstance(IpcResource().manager, IpcManager)
    assert resource.ordering().priority == 5
    assert runs_inline_for(resource.quiesce, resource, 1)
    assert not runs_inline_for(resource.cleanup, resource, 1)


def test_the_installed_plugin_is_found() -> None:
    """By its entry point, as kind `ipc`."""
    orchestrator = ResourceOrchestrator().discover(only=["ipc"])

    assert isinstance(orchestrator["ipc"], IpcResource)
