"""What fell in from outside is told from what code raises by itself."""

from __future__ import annotations

import gc
import signal
import threading

import pytest

from probate import ProcessState
from probate.system import start_thread
from probate.system.interrupts import fell_in


def test_an_error_of_an_enum_did_not_fall_in() -> None:
    """Dispositions are enums: any ValueError of an enum came out of a termination as well."""
    with pytest.raises(ValueError, match="bogus") as raised:
        ProcessState("bogus")

    assert not fell_in(raised.value)


def test_what_a_handler_raises_fell_in() -> None:
    """Whatever it is, by the handler's frame; the same error raised elsewhere did not."""

    def handler(*_: object) -> None:
        raise LookupError

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with pytest.raises(LookupError) as raised:
            signal.raise_signal(signal.SIGUSR2)
        assert fell_in(raised.value)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert not fell_in(LookupError())


def test_a_thread_is_started_whole() -> None:
    """A Ctrl-C at any moment of `Thread.start`: it runs, and ends, or was never begun."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    interrupted = 0
    before = signal.signal(signal.SIGALRM, interrupt)
    # What falls into the collector's callbacks is printed, and lost.
    gc.disable()
    try:
        for number in range(300):
            thread = threading.Thread(target=int)
            try:
                signal.setitimer(signal.ITIMER_REAL, 5e-6 + number % 30 * 5e-6)
                start_thread(thread)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            if thread.ident is not None:
                thread.join(5)

            assert thread not in threading.enumerate()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert interrupted > 10
