"""Signals are noticed whatever the main thread does: those of this process, and nobody else's."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from children import exit_code_of_fork

from probate.system.deathwatch import death_watch
from probate.system.signalwatch import SignalWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # From 3.12 on, os.fork() warns where there are several threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

#: Seconds within which everything here comes to pass, however slow the machine.
PATIENCE = 20


@pytest.fixture
def handled() -> Iterator[None]:
    """SIGUSR1 has a Python handler, which does nothing."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR1, before)


class Watched:
    """A watch, and what it tells: each signal, and on which thread."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self.watch = SignalWatch(lambda number: self.told.put((number, threading.get_ident())))


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Its descriptors, which are for the life of an interpreter, are closed in the end."""
    watched = Watched()
    yield watched
    watched.watch.close(watched)
    death_watch.join_if_idle()
    assert watched.watch._ends is not None
    for end in watched.watch._ends:
        os.close(end)


@pytest.mark.usefixtures("handled")
def test_a_signal_is_told_on_another_thread(watched: Watched) -> None:
    """As it comes, until the watch is closed."""
    watched.watch.open(watched)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
        number, thread = watched.told.get(timeout=PATIENCE)

        assert number == signal.SIGUSR1
        assert thread != threading.get_ident()
    watched.watch.close(watched)
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.usefixtures("handled")
def test_a_forked_child_tells_its_parent_nothing(watched: Watched) -> None:
    """It has given it up; one that was forked by C code, whom nobody has told, is known."""
    watched.watch.open(watched)
    assert watched.watch._ends is not None
    copy = os.dup(watched.watch._ends[1])

    def hit() -> None:
        assert signal.set_wakeup_fd(copy) == -1
        os.kill(os.getpid(), signal.SIGUSR1)

    assert exit_code_of_fork(hit) == 0
    os.close(copy)
    before = signal.signal(signal.SIGUSR2, signal.getsignal(signal.SIGUSR1))
    os.kill(os.getpid(), signal.SIGUSR2)

    assert watched.told.get(timeout=PATIENCE)[0] == signal.SIGUSR2
    signal.signal(signal.SIGUSR2, before)


def test_whoever_has_signals_written_elsewhere_keeps_them(watched: Watched) -> None:
    """Such as an event loop; one that puts ours back later, as uvloop does, finds it open."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        signal.set_wakeup_fd(ours.fileno())
        watched.watch.open(watched)
        assert signal.set_wakeup_fd(-1) == ours.fileno()
        watched.watch.close(watched)

        watched.watch.open(watched)
        before = signal.set_wakeup_fd(ours.fileno())
        watched.watch.close(watched)
        assert signal.set_wakeup_fd(before) == ours.fileno()
        assert signal.set_wakeup_fd(-1) == before
