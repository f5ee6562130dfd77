"""KernelView: what the kernel says, before and after."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from probate.testing.witness import KernelView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def a_file() -> Iterator[None]:
    fd = os.open("/dev/null", os.O_RDONLY)
    yield
    os.close(fd)


def a_socket() -> Iterator[None]:
    with socket.socket():
        yield


def a_map() -> Iterator[None]:
    with mmap.mmap(-1, 12345):
        yield


def a_thread() -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield
    over.set()
    thread.join()


def a_blocked_signal() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def a_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (a_file, r"fd \d+ is open: /dev/null"),
        (a_socket, r"fd \d+ is open: socket:\[\d+\]"),
        (a_map, "1 mapping more: .*"),
        (a_thread, r"thread \d+ runs on \(.*\)"),
        (a_blocked_signal, "signals blocked were .* and are .*"),
        (a_handler, "signals? .* and .*"),
    ],
)
def test_a_leftover_is_told(make: Callable[[], Iterator[None]], words: str) -> None:
    """Each sort of thing is seen when it comes, and when it has gone."""
    import re

    before = KernelView.take()
    thing = make()
    next(thing)
    differences = before.differences(KernelView.take())
    next(thing, None)

    assert differences
    assert all(re.fullmatch(words, line) for line in differences), differences
    assert before.changes() == []


def test_a_thread_that_was_joined_is_no_change_and_one_that_runs_on_is() -> None:
    """The kernel shows a thread for a moment after Python has let go of it."""
    before = KernelView.take()
    for _ in range(200):
        thread = threading.Thread(target=str)
        thread.start()
        thread.join()

        assert before.changes() == []

    over = threading.Event()
    runs_on = threading.Thread(target=over.wait, args=(60,), name="waiter")
    runs_on.start()
    changes = before.changes()
    over.set()
    runs_on.join()

    assert changes == [f"thread {runs_on.native_id} runs on (waiter)"]


def test_a_reused_descriptor_is_not_mistaken() -> None:
    """The same number with another thing behind it is a difference."""
    fd = os.open("/dev/null", os.O_RDONLY)
    before = KernelView.take()
    os.close(fd)
    other = os.open("/dev/zero", os.O_RDONLY)
    differences = before.differences(KernelView.take())
    os.close(other)

    assert other == fd
    assert differences == [f"fd {fd} was /dev/null and is /dev/zero"]
    assert before.differences(KernelView.take()) == [f"fd {fd} was /dev/null and is closed"]


def test_sockets_are_told_by_inode() -> None:
    """As /proc/net has them, so that holders can be compared."""
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino

        assert f"socket:[{inode}]" in KernelView.take().sockets
