"""Sending signals to processes, and registering for them."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest
from threads import in_thread

from probate import (
    NoCurrentProcessError,
    NotOwnedError,
    ProcessManager,
    ProcessNotFoundError,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
    UnadoptableError,
)
from probate_signals import SignalManager, SignalResource

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

pytestmark = pytest.mark.usefixtures("nothing_remains")

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


class Recorder:
    """A handler that remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, FrameType | None]] = []
        self.threads: list[int] = []

    def handle(self, signum: int, frame: FrameType | None) -> None:
        self.calls.append((signum, frame))
        self.threads.append(threading.get_ident())


def ignore(signum: int, frame: object) -> None:
    """A handler that does nothing."""


def test_a_signal_is_sent_to_one_process_alone(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Each handler of the one process is called, in order of registration; nobody else's."""
    one, other = manager.create_process("one"), manager.create_process("other")
    order: list[str] = []
    signals.register(one.pid, USR1, lambda *_: order.append("first"))
    signals.register(other.pid, USR1, lambda *_: order.append("other"))
    signals.register(one.pid, USR1, lambda *_: order.append("second"))
    signals.register(one.pid, USR2, lambda *_: order.append("another signal"))

    assert signals.send(one.pid, USR1) == 2
    assert order == ["first", "second"]


def test_a_sent_signal_is_handled_where_it_is_sent(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """From any thread, in that thread, with the number and no frame."""
    process, recorder = manager.create_process("threads"), Recorder()
    signals.register(process.pid, USR1, recorder.handle)
    thread, outcome = in_thread(lambda: signals.send(process.pid, USR1))
    thread.join(5)

    assert outcome == [1]
    assert recorder.calls == [(USR1, None)]
    assert recorder.threads == [thread.ident]


def test_a_signal_that_nobody_handles_is_nothing(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """A process without a handler is sent a signal in vain: no default action, no error."""
    process = manager.create_process("deaf")

    assert signals.send(process.pid, signal.SIGTERM) == 0
    assert not manager.orchestrator.has_resources(process.pid)


def test_nothing_is_installed_before_it_is_needed() -> None:
    """Neither the import, nor a manager, nor a mask touches a disposition."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    manager = SignalResource().manager
    manager.block(7, [USR1])
    manager.send(7, USR1)

    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


def test_one_handler_is_dropped_or_all(manager: ProcessManager, signals: SignalManager) -> None:
    """A handler is named by equality, as bound methods need it; without a name all are meant."""
    process = manager.create_process("dropping")
    one, two, three = Recorder(), Recorder(), Recorder()
    for recorder in (one, two, three):
        signals.register(process.pid, USR1, recorder.handle)
    signals.unregister(process.pid, USR1, one.handle)
    signals.send(process.pid, USR1)
    signals.unregister(process.pid, USR1)
    signals.send(process.pid, USR1)

    assert [len(each.calls) for each in (one, two, three)] == [0, 1, 1]
    assert not manager.orchestrator.has_resources(process.pid)
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_dropping_is_idempotent(manager: ProcessManager, signals: SignalManager) -> None:
    """Dropping twice is dropping once; also when the owner has ended in between."""
    process = manager.create_process("twice")
    signals.register(process.pid, USR1, ignore)
    signals.unregister(process.pid, USR1, ignore)
    signals.unregister(process.pid, USR1, ignore)
    signals.unregister(process.pid, USR1)
    manager.terminate_process(process.pid)
    signals.unregister(process.pid, USR1)

    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_one_owner_cannot_drop_anothers_handler(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """B closed A's socket, its id went to C: a handler is dropped by its owner alone."""
    a, b = manager.create_process("a"), manager.create_process("b")
    recorder = Recorder()
    signals.register(a.pid, USR1, recorder.handle)

    with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
        signals.unregister(b.pid, USR1, recorder.handle)
    signals.unregister(b.pid, USR1)
    manager.terminate_process(b.pid)

    assert signals.send(a.pid, USR1) == 1


def test_a_handler_may_end_registrations(manager: ProcessManager, signals: SignalManager) -> None:
    """Its own, and that of one that is yet to be called: which then is not called."""
    process, late = manager.create_process("once"), Recorder()
    calls: list[int] = []

    def once(signum: int, frame: object) -> None:
        calls.append(signum)
        signals.unregister(process.pid, USR1, once)
        signals.unregister(process.pid, USR1, late.handle)

    signals.register(process.pid, USR1, once)
    signals.register(process.pid, USR1, late.handle)

    assert signals.send(process.pid, USR1) == 1
    assert signals.send(process.pid, USR1) == 0
    assert (calls, late.calls) == ([USR1], [])


def test_a_handler_may_end_its_process(manager: ProcessManager, signals: SignalManager) -> None:
    """A SIGTERM handler that terminates the process; its other handlers are not called after."""
    process, late = manager.create_process("ends"), Recorder()
    signals.register(process.pid, USR1, lambda *_: manager.terminate_process(process.pid))
    signals.register(process.pid, USR1, late.handle)
    signal.raise_signal(USR1)

    assert late.calls == []
    assert manager.wait(process.pid).stats.by_type == {"signals": 2}


def _raising(error: BaseException) -> Callable[[int, object], None]:
    def handler(signum: int, frame: object) -> None:
        raise error

    return handler


@pytest.mark.parametrize("arrival", ["sent", "raised"])
def test_a_failing_handler_keeps_no_other_from_being_called(
    manager: ProcessManager, signals: SignalManager, arrival: str
) -> None:
    """All are called; then what one has raised is raised as it is."""
    process, recorder = manager.create_process("failing"), Recorder()
    signals.register(process.pid, USR1, _raising(OSError("the first")))
    signals.register(process.pid, USR1, recorder.handle)

    def deliver() -> None:
        if arrival == "sent":
            signals.send(process.pid, USR1)
        else:
            signal.raise_signal(USR1)

    with pytest.raises(OSError, match="the first"):
        deliver()

    assert len(recorder.calls) == 1


def test_several_failures_are_raised_as_a_group(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Nothing is swallowed."""
    process = manager.create_process("failing")
    errors = [OSError("one"), ValueError("two")]
    for error in errors:
        signals.register(process.pid, USR1, _raising(error))

    with pytest.raises(ExceptionGroup) as caught:
        signals.send(process.pid, USR1)

    assert list(caught.value.exceptions) == errors


def test_an_interrupt_comes_before_other_failures(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """`except KeyboardInterrupt` still sees one that came second; the first is its cause."""
    process, error = manager.create_process("interrupted"), OSError("one")
    signals.register(process.pid, USR1, _raising(error))
    signals.register(process.pid, USR1, _raising(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt) as caught:
        signals.send(process.pid, USR1)

    assert isinstance(caught.value.__cause__, BaseExceptionGroup)
    assert caught.value.__cause__.exceptions == (error,)


def test_real_time_signals_need_no_name(manager: ProcessManager, signals: SignalManager) -> None:
    """Any number of `signal.valid_signals()` will do, names or not."""
    process, recorder = manager.create_process("real-time"), Recorder()
    signals.register(process.pid, signal.SIGRTMIN + 3, recorder.handle)
    signal.raise_signal(signal.SIGRTMIN + 3)

    assert [signum for signum, _ in recorder.calls] == [signal.SIGRTMIN + 3]
    assert (
        "signal 37" in manager.orchestrator.usage(process.pid)["signals"].resources[0].description
    )


def test_a_limit_refuses_before_anything_is_acquired(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """No OS-level handler appears for a registration that the limit refuses."""
    limits = ResourceLimits(by_kind={"signals": {"max_count": 1}})  # type: ignore[dict-item]  # as from a file
    process = manager.create_process("limited", limits=limits)
    signals.register(process.pid, USR1, ignore)

    with pytest.raises(ResourceLimitExceeded, match="at most 1"):
        signals.register(process.pid, USR2, ignore)
    with pytest.raises(ResourceLimitExceeded, match="at most 1"):
        signals.block(process.pid, [USR2])

    assert signal.getsignal(USR2) is signal.SIG_DFL
    assert signals.send(process.pid, USR2) == 0


def test_a_terminated_owner_gets_nothing(manager: ProcessManager, signals: SignalManager) -> None:
    """Late registration for a terminated pid leaked for ever: it is refused."""
    process = manager.create_process("dead")
    manager.terminate_process(process.pid)

    with pytest.raises(ProcessTerminatedError):
        signals.register(process.pid, USR1, ignore)
    with pytest.raises(ProcessTerminatedError):
        signals.send(process.pid, USR1)
    with pytest.raises(ProcessTerminatedError):
        signals.block(process.pid, [])
    with pytest.raises(ProcessNotFoundError):
        signals.send(4711, USR1)
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_the_pid_may_be_left_out(manager: ProcessManager, signals: SignalManager) -> None:
    """Within `with manager.process(...)` all methods are for the current process."""
    recorder = Recorder()
    with manager.process("current") as process:
        signals.register(USR1, recorder.handle)
        signals.block([USR1])
        signals.send(USR1)

        assert signals.pending() == signals.pending(process.pid) == [USR1]

        signals.unblock([USR1])
        signals.unregister(USR1, handler=recorder.handle)

        assert not manager.orchestrator.has_resources(process.pid)

    assert recorder.calls == [(USR1, None)]
    with pytest.raises(NoCurrentProcessError):
        signals.send(USR1)


def test_usage_names_each_thing(manager: ProcessManager, signals: SignalManager) -> None:
    """Handlers, mask and pending signals, as a person would want to see them."""
    process = manager.create_process("user")
    signals.register(process.pid, USR1, ignore)
    signals.block(process.pid, [USR1])
    signals.send(process.pid, USR1)
    usage = manager.orchestrator.usage(process.pid)["signals"]

    assert [info.description for info in usage.resources] == [
        "handler ignore of SIGUSR1",
        "SIGUSR1 blocked",
        "SIGUSR1 pending",
    ]


def test_a_bare_function_is_not_adopted(manager: ProcessManager) -> None:
    """A function alone does not say which signal it is for: no kind claims it."""
    process = manager.create_process("adopter")

    with pytest.raises(UnadoptableError):
        manager.orchestrator.adopt(process.pid, ignore)


def test_the_order_among_kinds_is_twenty() -> None:
    """The users require mmap, tasks, rings, signals, sockets in this order."""
    assert SignalResource().ordering().priority == 20
