"""Agents in one program, each with limits: whoever ends gives back all that it had.

python examples/agents.py
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine

from probate import KindLimits, ProcessManager, ResourceLimits, current_process
from probate_memory import MemoryResource
from probate_tasks import TaskResource

LIMITS = ResourceLimits(
    by_kind={"memory": KindLimits(max_bytes=8 << 20), "sockets": KindLimits(max_count=2)},
    cpu=1,  # seconds of processor time, for each program that it starts
)


async def greedy(manager: ProcessManager) -> None:
    """Asks for more and more memory."""
    while True:
        manager.orchestrator[MemoryResource].manager.allocate(1 << 20)


async def busy(manager: ProcessManager) -> None:
    """Starts a program that never ends by itself."""
    program = manager.spawn([sys.executable, "-c", "while True: pass"])
    await manager.wait_async(program)
    print(f"busy: its program was ended by {signal.Signals(-(program.returncode or 0)).name}")


async def patient(_: ProcessManager) -> None:
    """Serves until somebody ends it."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    current_process().adopt(server)
    print("patient: serves")
    await server.serve_forever()


async def run(
    manager: ProcessManager, work: Callable[[ProcessManager], Coroutine[object, object, None]]
) -> None:
    """Run an agent to its end, whoever brings it about, and say what it has left."""
    async with manager.process(work.__name__) as agent:
        task = manager.orchestrator[TaskResource].manager.spawn(work(manager))
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            print(f"{agent.name}: {error}")
    print(f"{agent.name}: {agent.result}")


async def main() -> None:
    builder = ProcessManager.builder().with_limits(LIMITS).with_signals()
    async with builder.build() as manager, asyncio.TaskGroup() as group:
        last = group.create_task(run(manager, patient))
        await asyncio.wait([group.create_task(run(manager, work)) for work in (greedy, busy)])
        for agent in manager.list_processes():
            await manager.terminate_process_async(agent.pid)
        await last


if __name__ == "__main__":
    asyncio.run(main())
