"""Threads in tests: what they return or raise, and when they are blocked."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


def in_thread(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run `function` in a thread; the list gets what it returns or raises."""
    outcome: list[object] = []

    def call() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, outcome


def wait_until_blocked(thread: threading.Thread) -> None:
    """Wait until the kernel has put a thread to sleep in a system call (proc(5), state S)."""
    deadline = threading.Event()
    path = f"/proc/self/task/{thread.native_id}/syscall"
    for _ in range(2000):
        with open(path) as file:
            # 43 accept, 288 accept4, 45 recvfrom, 42 connect on x86-64 (syscall(2)).
            if file.read().split()[0] in {"43", "288", "45", "42"}:
                return
        deadline.wait(0.001)
    pytest.fail("the thread never blocked")
