"""Signals from the kernel: one OS-level handler for all, and what was there before it."""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from signals_kernel import disposition, is_caught
from signals_scripts import run_script

from probate import ProcessManager, ResourceOrchestrator
from probate_signals import SignalManager, SignalResource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("nothing_remains")

USR1 = signal.SIGUSR1


@pytest.fixture
def put_back(nothing_remains: None) -> Iterator[None]:
    """What the test itself has installed for SIGUSR1 goes with it."""
    yield
    signal.signal(USR1, signal.SIG_DFL)


def logging_to(log: list[str], word: str) -> Callable[[int, object], None]:
    """A handler that leaves its word."""
    return lambda signum, frame: log.append(word)


def arrive() -> None:
    """Have the kernel deliver SIGUSR1 to this program."""
    os.kill(os.getpid(), USR1)


def test_one_os_level_handler_serves_all(manager: ProcessManager, signals: SignalManager) -> None:
    """A signal reaches every process that has registered for it, in order, with its frame."""
    log: list[str] = []
    frames: list[object] = []
    pids = [manager.create_process(f"p{index}").pid for index in range(3)]
    for pid in pids:
        signals.register(pid, USR1, logging_to(log, str(pid)))
    installed = signal.getsignal(USR1)
    signals.register(pids[0], USR1, lambda signum, frame: frames.append(frame))

    assert is_caught(USR1)
    assert signal.getsignal(USR1) is installed

    arrive()

    assert log == [str(pid) for pid in pids]
    assert frames[0] is not None


def test_the_last_owner_out_restores_the_previous_disposition(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Not the first: the others are still served. The kernel is the witness."""
    a, b = manager.create_process("a"), manager.create_process("b")
    log: list[str] = []
    signals.register(a.pid, USR1, logging_to(log, "a"))
    signals.register(b.pid, USR1, logging_to(log, "b"))
    manager.terminate_process(a.pid)
    arrive()

    assert log == ["b"]
    assert is_caught(USR1)

    manager.terminate_process(b.pid)

    assert not is_caught(USR1)
    assert signal.getsignal(USR1) is signal.SIG_DFL


@pytest.mark.usefixtures("put_back")
def test_a_displaced_handler_is_chained_to_and_restored(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """A displaced SIGTERM handler was lost (sdk-python#226): it is called, and put back."""
    log: list[str] = []
    theirs = logging_to(log, "theirs")
    signal.signal(USR1, theirs)
    process = manager.create_process("chained")
    signals.register(process.pid, USR1, logging_to(log, "ours"))
    arrive()

    assert log == ["ours", "theirs"]

    manager.terminate_process(process.pid)

    assert signal.getsignal(USR1) is theirs


@pytest.mark.usefixtures("put_back")
def test_an_ignored_signal_is_ignored_again(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """SIG_IGN before: handled meanwhile, ignored after."""
    signal.signal(USR1, signal.SIG_IGN)
    log: list[str] = []
    process = manager.create_process("ignoring")
    signals.register(process.pid, USR1, logging_to(log, "ours"))
    arrive()
    manager.terminate_process(process.pid)
    arrive()

    assert log == ["ours"]
    assert signal.getsignal(USR1) is signal.SIG_IGN


@pytest.mark.usefixtures("put_back")
def test_flags_of_the_previous_disposition_are_restored(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """`signal.signal` drops SA_RESTART, as an event loop sets it; what is put back has it."""
    signal.signal(USR1, lambda *_: None)
    signal.siginterrupt(USR1, False)
    before = disposition(USR1)
    process = manager.create_process("flags")
    signals.register(process.pid, USR1, lambda *_: None)
    signals.unregister(process.pid, USR1)

    assert disposition(USR1) == before


def test_an_interrupt_still_interrupts(manager: ProcessManager, signals: SignalManager) -> None:
    """Python's own SIGINT handler is chained to, and its KeyboardInterrupt comes through."""
    process = manager.create_process("interrupted")
    log: list[str] = []
    signals.register(process.pid, signal.SIGINT, logging_to(log, "ours"))

    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)

    assert log == ["ours"]


# -- others who install handlers ----------------------------------------------


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("is_chaining", [False, True])
def test_a_handler_installed_after_ours_survives(
    manager: ProcessManager, signals: SignalManager, is_chaining: bool
) -> None:
    """It is neither called back out nor overwritten; ours beneath it is idle when its owner ends.

    The default action was not taken while somebody handled the signal, and theirs still does.
    """
    log: list[str] = []
    process = manager.create_process("before")
    signals.register(process.pid, USR1, logging_to(log, "ours"))
    ours: Any = signal.getsignal(USR1)

    def theirs(signum: int, frame: Any) -> None:
        log.append("theirs")
        if is_chaining:
            ours(signum, frame)

    signal.signal(USR1, theirs)
    arrive()

    assert log == (["theirs", "ours"] if is_chaining else ["theirs"])

    manager.terminate_process(process.pid)
    log.clear()
    arrive()

    assert log == ["theirs"]
    assert signal.getsignal(USR1) is theirs


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("is_chaining", [False, True])
def test_who_registers_after_that_is_reached_all_the_same(
    manager: ProcessManager, signals: SignalManager, is_chaining: bool
) -> None:
    """Ours goes on top of theirs, each is called once, and theirs is there again at the end."""
    log: list[str] = []
    first, second = manager.create_process("first"), manager.create_process("second")
    signal.signal(USR1, logging_to(log, "before"))
    signals.register(first.pid, USR1, logging_to(log, "first"))
    ours: Any = signal.getsignal(USR1)

    def theirs(signum: int, frame: Any) -> None:
        log.append("theirs")
        if is_chaining:
            ours(signum, frame)

    signal.signal(USR1, theirs)
    signals.register(second.pid, USR1, logging_to(log, "second"))
    arrive()

    assert log == ["first", "second", "theirs"] + ["before"] * is_chaining

    manager.terminate_process(first.pid)
    manager.terminate_process(second.pid)

    assert signal.getsignal(USR1) is theirs


@pytest.mark.usefixtures("put_back")
def test_a_handler_over_and_beneath_ours_makes_no_endless_loop(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Theirs chains to ours, over which it was installed twice: a circle, walked once."""
    log: list[str] = []
    process = manager.create_process("circle")
    beneath: Any = None

    def theirs(signum: int, frame: Any) -> None:
        log.append("theirs")
        if callable(beneath):
            beneath(signum, frame)

    beneath = signal.signal(USR1, theirs)
    signals.register(process.pid, USR1, logging_to(log, "ours"))
    beneath = signal.signal(USR1, theirs)
    arrive()

    assert log.count("ours") == 1

    log.clear()
    signals.register(process.pid, USR1, logging_to(log, "again"))
    beneath = signal.signal(USR1, theirs)
    arrive()

    assert (log.count("ours"), log.count("again")) == (1, 1)


@pytest.mark.usefixtures("put_back")
def test_a_second_signal_in_a_handler_is_no_circle(
    manager: ProcessManager, signals: SignalManager
) -> None:
    """Python nests handlers: one that arrives while its handler runs is delivered as well."""
    log: list[str] = []
    process = manager.create_process("nested")

    def nesting(signum: int, frame: object) -> None:
        log.append("in")
        if len(log) == 1:
            arrive()
        log.append("out")

    signals.register(process.pid, USR1, nesting)
    arrive()

    assert log == ["in", "in", "out", "out"]


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_orchestrators_share_a_signal(order: tuple[int, int]) -> None:
    """Each delivers to its own, whichever ends first; at the end all is as it was."""
    log: list[str] = []
    signal.signal(USR1, logging_to(log, "before"))
    before = signal.getsignal(USR1)
    orchestrators = [ResourceOrchestrator().register(SignalResource(), "signals") for _ in "ab"]
    for index, orchestrator in enumerate(orchestrators):
        orchestrator["signals"].manager.register(1, USR1, logging_to(log, str(index)))
    arrive()

    assert log == ["1", "0", "before"]

    log.clear()
    orchestrators[order[0]].cleanup_process(1)
    arrive()

    assert log == [str(order[1]), "before"]

    orchestrators[order[1]].cleanup_process(1)

    assert signal.getsignal(USR1) is before


# -- handlers of C code -------------------------------------------------------


def test_a_c_handler_is_chained_to_and_restored(
    manager: ProcessManager, signals: SignalManager, tmp_path: Path
) -> None:
    """C code's handler, of which Python knows nothing, is called after ours, and put back."""
    log: list[str] = []
    process = manager.create_process("over C")
    with (tmp_path / "dump").open("w+") as file:
        faulthandler.register(USR1, file=file, all_threads=False)
        before = disposition(USR1)
        try:
            signals.register(process.pid, USR1, logging_to(log, "ours"))
            arrive()
            first = Path(file.name).read_text()
            signals.unregister(process.pid, USR1)

            assert log == ["ours"]
            assert "most recent call first" in first
            assert disposition(USR1) == before

            arrive()

            assert log == ["ours"]
            assert len(Path(file.name).read_text()) > len(first)
        finally:
            faulthandler.unregister(USR1)


@pytest.mark.usefixtures("put_back")
def test_a_c_handler_that_chains_to_python_ends_there(
    manager: ProcessManager, signals: SignalManager, tmp_path: Path
) -> None:
    """Python handler, C handler that chains to it, ours on top: each is called once."""
    log: list[str] = []
    process = manager.create_process("sandwich")
    signal.signal(USR1, logging_to(log, "python"))
    with (tmp_path / "dump").open("w+") as file:
        faulthandler.register(USR1, file=file, all_threads=False, chain=True)
        try:
            signals.register(process.pid, USR1, logging_to(log, "ours"))
            arrive()

            assert log == ["ours", "python"]
            assert Path(file.name).read_text().count("most recent call first") == 1
        finally:
            signals.unregister(process.pid, USR1)
            faulthandler.unregister(USR1)
    arrive()

    assert log == ["ours", "python", "python"]


@pytest.mark.usefixtures("put_back")
def test_a_c_handler_installed_after_ours_survives(
    manager: ProcessManager, signals: SignalManager, tmp_path: Path
) -> None:
    """Python still names ours, the kernel does not: it is the kernel that is asked."""
    process, other = manager.create_process("under C"), manager.create_process("other")
    with (tmp_path / "dump").open("w+") as file:
        signals.register(process.pid, USR1, lambda *_: None)
        faulthandler.register(USR1, file=file, all_threads=False)
        try:
            theirs = disposition(USR1)
            signals.register(other.pid, USR1, lambda *_: None)
            manager.terminate_process(process.pid)
            manager.terminate_process(other.pid)

            assert disposition(USR1) == theirs
        finally:
            faulthandler.unregister(USR1)


def test_a_disposition_that_python_calls_none_is_restored() -> None:
    """Restoring a C-level handler raised TypeError: `getsignal` gives None, we cope with it."""
    done = run_script(
        """
        from probate_signals.sigaction import handler_address, read

        say(signal.getsignal(signal.SIGFPE))
        before = handler_address(read(signal.SIGFPE))
        signals.register(process.pid, signal.SIGFPE, lambda *_: say("ours"))
        signals.send(process.pid, signal.SIGFPE)
        say(str(manager.terminate_process(process.pid)))
        say(handler_address(read(signal.SIGFPE)) == before)
        os.kill(os.getpid(), signal.SIGFPE)
        """,
        "-X",
        "faulthandler",
    )

    assert done.stdout.splitlines() == [
        "None",
        "ours",
        "PID 1 cleanup: 1 resources freed, 0 bytes freed, 0 errors",
        "True",
    ]
    assert "Fatal Python error: Floating" in done.stderr
    assert done.returncode == -signal.SIGFPE
