"""A forked child owns nothing: neither its tables nor its finalizers touch the parent's."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import asyncio, gc, os, sys, threading
from probate import ProcessManager, ResourceOrchestrator
from probate_tasks import TaskResource

resource = TaskResource()
orchestrator = ResourceOrchestrator().register(resource)
manager = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(5).build()
process = manager.create_process("parent")
go = threading.Event()

async def work():
    try:
        await asyncio.Event().wait()
    finally:
        print("task ended in", "parent" if os.getpid() == parent else "child", flush=True)

def in_child():
    assert not orchestrator.has_resources(process.pid)
    assert resource.manager.status(process.pid) == {}
    assert orchestrator.cleanup_process(process.pid, grace=0).stats.resources_freed == 0
    gc.collect()
    # The child has threads and a loop of its own.
    child = TaskResource().manager
    assert child.submit(1, int, "7").result(5) == 7
    print("child is through", flush=True)

async def main():
    task = resource.manager.spawn(process.pid, work())
    await asyncio.sleep(0)
    future = resource.manager.submit(process.pid, go.wait, 10)
    pid = os.fork()
    if pid == 0:
        asyncio.events._set_running_loop(None)
        try:
            in_child()
        except BaseException as error:
            print("child:", repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not task.done() and future.running()
    assert orchestrator.usage(process.pid)["tasks"].count == 2
    go.set()
    result = await manager.terminate_process_async(process.pid)
    assert result.is_success, result.errors
    assert task.cancelled()

parent = os.getpid()
asyncio.run(main())
"""


def test_a_forked_child_owns_nothing_and_ends_nothing() -> None:
    """The parent's task goes on in the parent, and ends there; the child has none of it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["child is through", "task ended in parent"]
    assert done.returncode == 0
