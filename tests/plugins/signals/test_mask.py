"""Blocking, queueing and unblocking."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probate import ProcessManager, ResourceLimitExceeded, ResourceLimits
from probate_signals import SignalManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

USR1, USR2, WINCH = signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH


def test_blocked_signals_are_queued_first_in_first_out(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Each one sent waits, and is delivered in order by the unblocking."""
    process = manager.create_process("blocked")
    got: list[int] = []
    for number in (USR1, USR2):
        signals.register(process.pid, number, lambda signum, _: got.append(signum))
    signals.block(process.pid, {USR1, USR2})
    sent = [USR2, USR1, USR1, USR2]

    assert [signals.send(process.pid, number) for number in sent] == [0, 0, 0, 0]
    assert got == []
    assert signals.pending(process.pid) == sent

    signals.unblock(process.pid, {USR1, USR2})

    assert got == sent
    assert signals.pending(process.pid) == []


def test_only_what_is_unblocked_is_delivered(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """The others wait on; signals that were never blocked never waited."""
    process = manager.create_process("partly")
    got: list[int] = []
    for number in (USR1, USR2, WINCH):
        signals.register(process.pid, number, lambda signum, _: got.append(signum))
    signals.block(process.pid, [USR1, USR2])
    for number in (USR1, USR2, WINCH):
        signals.send(process.pid, number)
    signals.unblock(process.pid, [USR2, WINCH])

    assert got == [WINCH, USR2]
    assert signals.pending(process.pid) == [USR1]


def test_a_mask_is_one_processs_own(manager: ProcessManager, signals: SignalManager) -> None:
    """What one blocks, another gets; in the kernel's mask nothing changes."""
    a, b = manager.create_process("a"), manager.create_process("b")
    got: list[str] = []
    signals.register(a.pid, USR1, lambda *_: got.append("a"))
    signals.register(b.pid, USR1, lambda *_: got.append("b"))
    signals.block(a.pid, [USR1])
    os.kill(os.getpid(), USR1)

    assert got == ["b"]
    assert signals.pending(a.pid) == [USR1]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_those_of_the_kernel_merge_and_those_sent_do_not(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """As in signal(7), a standard signal that is pending already is not queued again."""
    process = manager.create_process("merging")
    got: list[int] = []
    signals.register(process.pid, USR1, lambda signum, _: got.append(signum))
    for _ in range(2):
        signals.block(process.pid, [USR1])
        for _ in range(3):
            os.kill(os.getpid(), USR1)
        signals.send(process.pid, USR1)

        assert signals.pending(process.pid) == [USR1, USR1]

        signals.unblock(process.pid, [USR1])

    assert len(got) == 4


@pytest.mark.parametrize("what", ["blocked", "pending", "handler"])
def test_any_one_thing_makes_an_owner(
    manager: ProcessManager, signals: SignalManager, what: str
) -> None:
    """has_resources looked at messages only: handlers, mask and pending signals all count."""
    process = manager.create_process("owner")
    if what == "handler":
        signals.register(process.pid, USR1, lambda *_: None)
    else:
        signals.block(process.pid, [USR1])
    if what == "pending":
        signals.send(process.pid, USR1)

    assert manager.orchestrator.has_resources(process.pid)

    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.by_type == {"signals": 2 if what == "pending" else 1}
    assert not manager.orchestrator.has_resources(process.pid)
    assert signals.pending(process.pid) == []


def test_a_mask_that_is_empty_again_is_nothing(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Blocking twice is blocking once, and unblocking leaves nothing behind."""
    process = manager.create_process("empty")
    signals.block(process.pid, [USR1, USR1])
    signals.block(process.pid, [USR1])

    assert manager.orchestrator.usage(process.pid)["signals"].count == 1

    signals.unblock(process.pid, [USR1, USR2])
    signals.unblock(process.pid, [USR1])

    assert not manager.orchestrator.has_resources(process.pid)


def test_a_pending_signal_of_nobody_is_dropped_when_unblocked(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """A signal waits also without a handler; one that comes in time gets it."""
    process = manager.create_process("late")
    got: list[int] = []
    signals.block(process.pid, [USR1, USR2])
    signals.send(process.pid, USR1)
    signals.send(process.pid, USR2)
    signals.register(process.pid, USR1, lambda signum, _: got.append(signum))
    signals.unblock(process.pid, [USR1, USR2])

    assert got == [USR1]
    assert signals.pending(process.pid) == []


def test_a_handler_may_block_again(manager: ProcessManager, signals: SignalManager) -> None:
    """What is left in the queue waits on, and is not lost."""
    process = manager.create_process("one at a time")
    got: list[int] = []

    def one(signum: int, frame: object) -> None:
        got.append(signum)
        signals.block(process.pid, [USR1])

    signals.register(process.pid, USR1, one)
    signals.block(process.pid, [USR1])
    for _ in range(3):
        signals.send(process.pid, USR1)
    signals.unblock(process.pid, [USR1])

    assert len(got) == 1
    assert signals.pending(process.pid) == [USR1, USR1]


def test_a_mask_is_set_as_a_whole_or_not_at_all(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """When a limit refuses the third, the first two are not blocked either."""
    limits = ResourceLimits(by_kind={"signals": {"max_count": 2}})  # type: ignore[dict-item]  # as from a file
    process = manager.create_process("limited", limits=limits)

    with pytest.raises(ResourceLimitExceeded, match="at most 2"):
        signals.block(process.pid, [USR1, USR2, WINCH])

    assert not manager.orchestrator.has_resources(process.pid)


def test_a_full_queue_refuses_the_sender_and_never_the_program(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """A tenant at its limit costs the sender an error; the kernel's signal is dropped for it."""
    limits = ResourceLimits(by_kind={"signals": {"max_count": 2}})  # type: ignore[dict-item]  # as from a file
    process = manager.create_process("limited", limits=limits)
    signals.register(process.pid, USR1, lambda *_: None)
    signals.block(process.pid, [USR1])

    with pytest.raises(ResourceLimitExceeded):
        signals.send(process.pid, USR1)
    os.kill(os.getpid(), USR1)

    assert signals.pending(process.pid) == []


def test_no_signal_is_lost_between_sending_and_unblocking(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Threads send while another blocks and unblocks: each one sent is delivered, once."""
    process = manager.create_process("raced")
    got: deque[int] = deque()
    signals.register(process.pid, USR1, lambda signum, _: got.append(signum))
    is_over = threading.Event()

    def send() -> None:
        for _ in range(500):
            signals.send(process.pid, USR1)

    def toggle() -> None:
        while not is_over.is_set():
            signals.block(process.pid, [USR1])
            signals.unblock(process.pid, [USR1])

    togglers = [threading.Thread(target=toggle) for _ in range(2)]
    senders = [threading.Thread(target=send) for _ in range(3)]
    for thread in togglers + senders:
        thread.start()
    for thread in senders:
        thread.join(20)
    is_over.set()
    for thread in togglers:
        thread.join(20)
    signals.unblock(process.pid, [USR1])

    assert len(got) == 1500
    assert signals.pending(process.pid) == []
    assert manager.orchestrator.usage(process.pid)["signals"].count == 1


def test_a_long_queue_costs_no_more_per_signal(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Ten thousand wait, and are delivered, without a look at all others for each."""
    process = manager.create_process("long")
    got: list[int] = []
    signals.register(process.pid, USR1, lambda signum, _: got.append(signum))
    signals.block(process.pid, [USR1])
    for _ in range(10_000):
        signals.send(process.pid, USR1)
    signals.unblock(process.pid, [USR1])

    assert len(got) == 10_000


ACTIONS = st.tuples(st.sampled_from(["block", "unblock", "send"]), st.sampled_from([USR1, USR2]))


@settings(max_examples=60, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=25))
def test_a_mask_and_a_queue_behave_as_a_model_of_them(
    actions: list[tuple[str, signal.Signals]],
) -> None:
    """Any sequence of blocking, unblocking and sending: the same order as in plain lists."""
    signals = SignalManager()
    got: list[int] = []
    for number in (USR1, USR2):
        signals.register(1, number, lambda signum, _: got.append(signum))
    expected: list[int] = []
    mask: set[int] = set()
    queue: list[int] = []
    for action, number in actions:
        if action == "send":
            signals.send(1, number)
            (queue if number in mask else expected).append(number)
        elif action == "block":
            signals.block(1, [number])
            mask.add(number)
        else:
            signals.unblock(1, [number])
            mask.discard(number)
            expected += [each for each in queue if each not in mask]
            queue = [each for each in queue if each in mask]

        assert (got, signals.pending(1)) == (expected, queue)

    assert signals.cleanup(1).resources_freed == 2 + len(mask) + len(queue)
    assert 1 not in signals.table
