"""Signals that arrive at the worst of moments: between any two bytecodes of our own."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from probate import KindLimits, ProcessManager, ProcessTerminatedError, ResourceLimits
from probate_signals.mainthread import main_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate_signals import SignalManager

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # A deadlock must fail the test, not hang it; the default takes SIGALRM.
    pytest.mark.timeout(30, method="thread"),
]

USR1 = signal.SIGUSR1
SECONDS = 1.0


@contextmanager
def storm(*signums: int) -> Iterator[None]:
    """Have another thread send OS signals without a pause."""
    is_over = threading.Event()

    def send() -> None:
        while not is_over.is_set():
            for signum in signums:
                os.kill(os.getpid(), signum)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(5)


def rounds() -> Iterator[int]:
    """Count until the time is up."""
    end = time.monotonic() + SECONDS
    count = 0
    while time.monotonic() < end:
        yield count
        count += 1


@pytest.fixture
def _ignored(nothing_remains: None) -> Iterator[None]:
    """The signals of the storm are ignored where nobody handles them."""
    signal.signal(USR1, signal.SIG_IGN)
    yield
    signal.signal(USR1, signal.SIG_DFL)


@pytest.mark.usefixtures("_ignored")
def test_registering_and_terminating_in_a_storm(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Handlers that themselves register, block and drop, with limits: neither deadlock nor leak."""
    limits = ResourceLimits(by_kind={"signals": KindLimits(max_count=50)})
    got = done = 0
    with storm(USR1):
        for _ in rounds():
            process = manager.create_process("stormy", limits=limits)

            def once(signum: int, frame: object, pid: int = process.pid) -> None:
                nonlocal got
                got += 1
                # It may be called when its process has just begun to end.
                with suppress(ProcessTerminatedError):
                    signals.block(pid, [signum])
                    signals.send(pid, signum)
                signals.unregister(pid, signum, once)

            signals.register(process.pid, USR1, once)
            signals.register(process.pid, signal.SIGWINCH, lambda *_: None)
            signals.unblock(process.pid, [USR1])
            signals.block(process.pid, [signal.SIGWINCH])
            signals.send(process.pid, signal.SIGWINCH)
            result = manager.terminate_process(process.pid)

            assert result.is_success
            assert not manager.orchestrator.has_resources(process.pid)

            done += 1

    assert done > 20
    assert got > 0
    assert signal.getsignal(USR1) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGWINCH) is signal.SIG_DFL


@pytest.mark.usefixtures("_ignored")
def test_terminating_elsewhere_in_a_storm(manager: ProcessManager, signals: SignalManager) -> None:
    """Another thread registers and ends processes while the main thread is being hit."""
    is_over = threading.Event()
    ended = 0

    def live_and_die() -> None:
        nonlocal ended
        while not is_over.is_set():
            process = manager.create_process("elsewhere")
            signals.register(process.pid, USR1, lambda *_: None)
            signals.block(process.pid, [USR1])
            ended += manager.terminate_process(process.pid).stats.resources_freed >= 2

    thread = threading.Thread(target=live_and_die)
    thread.start()
    try:
        with storm(USR1):
            for _ in rounds():
                sum(range(100))
    finally:
        is_over.set()
        thread.join(5)

    assert ended > 20
    assert signal.getsignal(USR1) is signal.SIG_IGN


def test_deliveries_that_were_put_off_do_not_nest(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """However much comes in while it is being done, it is done in one loop: the stack is finite."""
    depths: list[int] = []
    process = manager.create_process("deep")

    def work(left: int) -> None:
        depths.append(sum(1 for _ in traceback.walk_stack(None)))
        if left:
            main_thread.shielded(lambda: main_thread.defer(lambda: work(left - 1)))
            signals.block(process.pid, [USR1])

    main_thread.shielded(lambda: main_thread.defer(lambda: work(300)))

    assert len(depths) == 301
    assert max(depths) - min(depths) < 10


@pytest.mark.usefixtures("_ignored")
def test_no_delivery_is_lost_to_an_operation_it_interrupts(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """A signal that falls into our own bookkeeping is delivered right after it, each one."""
    process = manager.create_process("counted")
    counts = [0, 0]

    def previous(signum: int, frame: object) -> None:
        counts[0] += 1

    def ours(signum: int, frame: object) -> None:
        counts[1] += 1

    signal.signal(USR1, previous)
    signals.register(process.pid, USR1, ours)
    with storm(USR1):
        for _ in rounds():
            signals.block(process.pid, [signal.SIGWINCH])
            signals.unblock(process.pid, [signal.SIGWINCH])

    assert counts[0] == counts[1] > 0
