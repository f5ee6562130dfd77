"""With an event loop in the main thread."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_signals import SignalManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

USR1 = signal.SIGUSR1


def test_a_signal_reaches_an_idle_loop(manager: ProcessManager, signals: SignalManager) -> None:
    """The loop sleeps in its selector; another thread's os.kill wakes it for our handler."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        process = manager.create_process("awaiting")
        arrived: asyncio.Future[int] = loop.create_future()

        def handler(signum: int, frame: object) -> None:
            loop.call_soon_threadsafe(arrived.set_result, signum)

        signals.register(process.pid, USR1, handler)
        timer = threading.Timer(0.02, os.kill, (os.getpid(), USR1))
        timer.start()
        async with asyncio.timeout(5):
            got = await arrived
        await manager.terminate_process_async(process.pid)
        timer.join()
        return got

    assert asyncio.run(main()) == USR1
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_a_loops_own_handler_beneath_ours_is_served(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """`loop.add_signal_handler` came first: both get the signal, and the loop's is put back."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        looped = asyncio.Event()
        ours: list[int] = []
        loop.add_signal_handler(USR1, looped.set)
        try:
            before = signal.getsignal(USR1)
            process = manager.create_process("over the loop")
            signals.register(process.pid, USR1, lambda signum, _: ours.append(signum))
            for expected in ([USR1], [USR1]):
                looped.clear()
                os.kill(os.getpid(), USR1)
                async with asyncio.timeout(5):
                    await looped.wait()

                assert ours == expected

                # Second time round: without us, with the loop alone.
                await manager.terminate_process_async(process.pid)

                assert signal.getsignal(USR1) is before
        finally:
            loop.remove_signal_handler(USR1)

    asyncio.run(main())


def test_a_loops_own_handler_over_ours_survives(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """`loop.add_signal_handler` came after: it is not overwritten when our owner ends."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        looped = asyncio.Event()
        process = manager.create_process("under the loop")
        signals.register(process.pid, USR1, lambda *_: None)
        loop.add_signal_handler(USR1, looped.set)
        try:
            theirs = signal.getsignal(USR1)
            await manager.terminate_process_async(process.pid)
            os.kill(os.getpid(), USR1)
            async with asyncio.timeout(5):
                await looped.wait()

            assert signal.getsignal(USR1) is theirs
        finally:
            loop.remove_signal_handler(USR1)

    asyncio.run(main())


def test_the_sync_form_works_on_a_loops_own_thread(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Nothing here waits, so nothing is BUSY; and a second, async, termination gets the same."""

    async def main() -> None:
        process = manager.create_process("sync on loop")
        signals.register(process.pid, USR1, lambda *_: None)
        result = manager.terminate_process(process.pid)

        assert result.stats.by_type == {"signals": 1}
        assert await manager.terminate_process_async(process.pid) == result
        assert signal.getsignal(USR1) is signal.SIG_DFL

    asyncio.run(main())


def test_a_loop_in_another_thread_registers_and_terminates(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """All from a loop that is not the main thread's, which `add_signal_handler` would refuse."""
    outcome: list[Any] = []

    async def main() -> None:
        process = manager.create_process("in a thread's loop")
        signals.register(process.pid, USR1, lambda *_: None)
        outcome.append(signals.send(process.pid, USR1))
        outcome.append(await manager.terminate_process_async(process.pid))

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join(10)

    assert outcome[0] == 1
    assert outcome[1].is_success
    assert signal.getsignal(USR1) is signal.SIG_DFL
