"""Terminating from any thread, in any form, and in a forked child."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from signals_scripts import run_script
from threads import in_thread

from probate import (
    CleanupStats,
    NotOwnedError,
    ProcessManager,
    ProcessTerminatedError,
    ResourceOrchestrator,
)
from probate_signals import SignalManager, SignalResource

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("nothing_remains")

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture
def log(nothing_remains: None) -> Iterator[list[str]]:
    """What the previous handler of SIGUSR1, a Python function, has to say."""
    words: list[str] = []
    signal.signal(USR1, lambda *_: words.append("previous"))
    yield words
    signal.signal(USR1, signal.SIG_DFL)


def test_everything_goes_in_one_termination(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Handlers, pending signals and mask, in one account; a second one finds nothing."""
    process = manager.create_process("all")
    for number in (USR1, USR2):
        signals.register(process.pid, number, lambda *_: None)
    signals.block(process.pid, [USR1])
    signals.send(process.pid, USR1)

    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.by_type == {"signals": 4}
    assert manager.terminate_process(process.pid) == result
    again = manager.orchestrator["signals"].cleanup(process.pid)
    assert again.model_copy(update={"duration_seconds": 0}) == CleanupStats()


def test_nothing_to_free(manager: ProcessManager) -> None:
    """A process without signals has an empty account."""
    stats = manager.terminate_process(manager.create_process("idle").pid).stats

    assert stats.model_copy(update={"duration_seconds": 0}) == CleanupStats()


def test_a_disposition_that_somebody_has_reset_is_left_alone(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """`signal.signal(SIG_IGN)` over ours is somebody's last word: it stays."""
    process = manager.create_process("reset")
    signals.register(process.pid, USR1, lambda *_: None)
    signal.signal(USR1, signal.SIG_IGN)
    try:
        result = manager.terminate_process(process.pid)

        assert result.is_success
        assert signal.getsignal(USR1) is signal.SIG_IGN
    finally:
        signal.signal(USR1, signal.SIG_DFL)


def test_one_that_is_uncovered_while_its_owner_ends_is_taken_out(
    manager: ProcessManager, signals: SignalManager, log: list[str]
) -> None:
    """Somebody who stops when asked may put back ours, which was quiesced under theirs."""
    before = signal.getsignal(USR1)
    process = manager.create_process("covered")
    signals.register(process.pid, USR1, lambda *_: None)
    ours = signal.signal(USR1, lambda *_: None)
    resource = manager.orchestrator["signals"]
    resource.quiesce(process.pid)
    signal.signal(USR1, ours)
    stats = resource.cleanup(process.pid)

    assert stats.resources_freed == 1
    assert signal.getsignal(USR1) is before
    assert log == []


def test_quiesce_stops_delivery(manager: ProcessManager, signals: SignalManager) -> None:
    """From then on neither the kernel's signals nor sent ones reach it; it still owns all."""
    got: list[int] = []
    dying, other = manager.create_process("dying"), manager.create_process("other")
    for process in (dying, other):
        signals.register(process.pid, USR1, lambda *_, pid=process.pid: got.append(pid))
    resource = manager.orchestrator["signals"]

    assert list(resource.quiesce(dying.pid)) == []

    os.kill(os.getpid(), USR1)
    signals.send(dying.pid, USR1)

    assert got == [other.pid]
    assert resource.has_resources(dying.pid)
    assert manager.terminate_process(dying.pid).stats.by_type == {"signals": 1}


def test_sending_is_refused_while_the_process_ends(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """A handler that is called by another's end cannot revive the one that is ending."""
    from probate import Ordering, OwnershipTable, hookimpl

    outcomes: list[BaseException] = []

    class Witness:
        def __init__(self) -> None:
            self.table: OwnershipTable[str] = OwnershipTable("witness")

        @hookimpl
        def ordering(self) -> Ordering:
            return Ordering(priority=30)

        @hookimpl
        def has_resources(self, pid: int) -> bool:
            return pid in self.table

        @hookimpl
        def cleanup(self, pid: int) -> CleanupStats:
            try:
                signals.send(pid, USR1)
            except ProcessTerminatedError as error:
                outcomes.append(error)
            return self.table.cleanup(pid, lambda _: None)

    witness = Witness()
    manager.orchestrator.register(witness, "witness")
    process = manager.create_process("ending")
    signals.register(process.pid, USR1, lambda *_: None)
    witness.table.add(process.pid, "thing")

    assert manager.terminate_process(process.pid).is_success
    assert len(outcomes) == 1


# -- from other threads -------------------------------------------------------


def test_terminating_elsewhere_is_honoured_at_once_and_restored_by_the_main_thread(
    manager: ProcessManager, signals: SignalManager, log: list[str]
) -> None:
    """The previous handler gets the signal, though only the main thread can put it back."""
    process = manager.create_process("elsewhere")
    previous = signal.getsignal(USR1)
    signals.register(process.pid, USR1, lambda *_: log.append("ours"))
    thread, outcome = in_thread(lambda: manager.terminate_process(process.pid).is_success)
    thread.join(5)

    assert outcome == [True]
    assert signal.getsignal(USR1) is previous

    os.kill(os.getpid(), USR1)

    assert log == ["previous"]


def test_a_main_thread_that_cannot_run_python_is_not_needed() -> None:
    """Nobody has put it back yet, and still an ignored signal is ignored, a handler called."""
    done = run_script(
        """
        signal.signal(signal.SIGUSR1, lambda *_: say("previous"))
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signals.register(process.pid, number, lambda *_: say("ours"))

        def end():
            manager.terminate_process(process.pid)
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                os.kill(os.getpid(), number)

        in_thread(end)
        say(signal.getsignal(signal.SIGUSR2).name)
        """
    )

    assert done.stdout.splitlines() == ["previous", "SIG_IGN"]
    assert done.returncode == 0


@pytest.mark.parametrize("wait", ["time.sleep(20)", "while True: pass"])
def test_the_default_action_is_taken_when_the_last_owner_ended_elsewhere(wait: str) -> None:
    """SIGTERM ends the program by SIGTERM, as its parent would see it without us."""
    done = run_script(
        f"""
        signals.register(process.pid, signal.SIGTERM, lambda *_: say("ours"))
        os.kill(os.getpid(), signal.SIGTERM)

        def end():
            manager.terminate_process(process.pid)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=end, daemon=True).start()
        {wait}
        """
    )

    assert done.stdout.splitlines() == ["ours"]
    assert done.returncode == -signal.SIGTERM
    assert done.stderr == ""


def test_registering_elsewhere_is_completed_by_the_main_thread(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """A thread registers: sending works at once, the kernel's signals when the main thread ran."""
    process = manager.create_process("elsewhere")
    got: list[object] = []

    def register() -> int:
        signals.register(process.pid, USR1, lambda _, frame: got.append(frame))
        return signals.send(process.pid, USR1)

    thread, outcome = in_thread(register)
    thread.join(5)
    os.kill(os.getpid(), USR1)

    assert outcome == [1]
    assert got[0] is None
    assert got[1] is not None


def test_registering_races_terminating(manager: ProcessManager, signals: SignalManager) -> None:
    """Terminate during create left half a process: whoever wins, nothing is left behind."""
    for _ in range(100):
        process = manager.create_process("raced")
        start = threading.Barrier(3)

        def register(pid: int = process.pid, start: threading.Barrier = start) -> int:
            start.wait(5)
            done = 0
            try:
                for number in (USR1, USR2, signal.SIGWINCH):
                    signals.register(pid, number, lambda *_: None)
                    signals.block(pid, [number])
                    signals.send(pid, number)
                    done += 1
            except ProcessTerminatedError:
                pass
            return done

        threads = [in_thread(register) for _ in range(2)]
        start.wait(5)
        result = manager.terminate_process(process.pid)
        for thread, _ in threads:
            thread.join(5)

        assert result.is_success
        assert all(isinstance(outcome[0], int) for _, outcome in threads)
        assert not manager.orchestrator.has_resources(process.pid)
        assert signals.pending(process.pid) == []
    dispositions = [signal.getsignal(number) for number in (USR1, USR2, signal.SIGWINCH)]

    assert dispositions == [signal.SIG_DFL] * 3


def test_many_end_at_once(manager: ProcessManager, signals: SignalManager, log: list[str]) -> None:
    """Fifty processes ended by four threads: each account is exact, and the last one restores."""
    previous = signal.getsignal(USR1)
    pids = [manager.create_process(f"p{index}").pid for index in range(50)]
    for pid in pids:
        signals.register(pid, USR1, lambda *_: None)

    def end(mine: list[int]) -> int:
        return sum(manager.terminate_process(pid).stats.resources_freed for pid in mine)

    threads = [in_thread(lambda mine=pids[first::4]: end(mine)) for first in range(4)]  # type: ignore[misc]  # mypy cannot type a lambda with defaults
    for thread, _ in threads:
        thread.join(10)

    assert sum(int(str(outcome[0])) for _, outcome in threads) == 50
    assert signal.getsignal(USR1) is previous


def test_two_threads_block_the_same_signal_once(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """A mask has each signal once, whoever sets it."""
    for _ in range(100):
        process = manager.create_process("masked")
        start = threading.Barrier(3)

        def block(pid: int = process.pid, start: threading.Barrier = start) -> None:
            start.wait(5)
            signals.block(pid, [USR1, USR2])

        threads = [in_thread(block) for _ in range(2)]
        start.wait(5)
        for thread, _ in threads:
            thread.join(5)

        assert [outcome for _, outcome in threads] == [[None], [None]]
        assert manager.terminate_process(process.pid).stats.by_type == {"signals": 2}


# -- without a process manager, and in a child --------------------------------


def test_without_a_process_manager_a_pid_is_a_plain_key() -> None:
    """It may be used again after its cleanup."""
    orchestrator = ResourceOrchestrator().register(SignalResource())
    signals: SignalManager = orchestrator["signals"].manager
    for _ in range(2):
        signals.register(7, USR1, lambda *_: None)

        assert str(orchestrator.cleanup_process(7)).startswith("PID 7 cleanup: 1 resources freed")

    signals.register(8, USR1, print)
    with pytest.raises(NotOwnedError):
        signals.unregister(7, USR1, print)
    orchestrator.cleanup_process(8)


def test_a_forked_child_owns_nothing() -> None:
    """It inherits the idle OS-level handler: the previous disposition is honoured there.

    It may register for itself, and the parent's handlers are never called in it.
    """
    done = run_script(
        """
        signals.register(process.pid, signal.SIGUSR1, lambda *_: say("parent's"))
        signals.block(process.pid, [signal.SIGUSR2])
        signals.send(process.pid, signal.SIGUSR2)

        def forked(function):
            child = os.fork()
            if not child:
                try:
                    function()
                finally:
                    os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        def owns():
            say(process.pid in signals.table, signals.pending(process.pid))

        def dies():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(20)

        def registers():
            own = ResourceOrchestrator().register(SignalResource(), "signals")
            own["signals"].manager.register(1, signal.SIGUSR1, lambda *_: say("child's"))
            os.kill(os.getpid(), signal.SIGUSR1)
            own.cleanup_process(1)
            say(signal.getsignal(signal.SIGUSR1).name)

        say(forked(owns), forked(dies), forked(registers))
        os.kill(os.getpid(), signal.SIGUSR1)
        say(signals.pending(process.pid))
        """
    )

    assert done.stdout.splitlines() == [
        "False []",
        "child's",
        "SIG_DFL",
        f"0 {-signal.SIGUSR1:d} 0",
        "parent's",
        "[12]",
    ]
    assert done.stderr == ""
