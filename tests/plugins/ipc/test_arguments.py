"""Bad arguments, to the manager and to what it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from probate_ipc import QueueKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate_ipc import IpcManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.mark.parametrize(
    ("method", "arguments", "keywords", "error"),
    [
        ("pipe", (), {"writer": "x"}, TypeError),
        ("connection_pair", (), {"peer": 1.5}, TypeError),
        ("queue", (0,), {}, ValueError),
        ("queue", ("3",), {}, TypeError),
        ("queue", (1,), {"kind": "lifo"}, ValueError),
        ("queue", (1,), {"max_bytes": -1}, ValueError),
        ("queue", (True,), {}, TypeError),
        ("create_posix_queue", ("no-slash",), {}, ValueError),
        ("create_posix_queue", ("/a/b",), {}, ValueError),
        ("create_posix_queue", ("/" + "x" * 251,), {}, ValueError),
        ("create_posix_queue", (b"/x",), {}, TypeError),
        ("create_posix_queue", (), {"max_messages": 0}, ValueError),
        ("create_posix_queue", (), {"max_message_size": "8"}, TypeError),
        ("create_posix_queue", (), {"max_messages": 10**9}, ValueError),
        ("create_posix_queue", (), {"mode": 0o7777}, ValueError),
        ("open_posix_queue", (None,), {}, TypeError),
        ("create_sysv_queue", (0,), {}, ValueError),
        ("create_sysv_queue", ("key",), {}, TypeError),
        ("create_sysv_queue", (), {"mode": "rw"}, TypeError),
        ("open_sysv_queue", (-1,), {}, ValueError),
        ("create_sysv_semaphore", (), {"value": -1}, ValueError),
        ("create_sysv_semaphore", (), {"value": 32768}, ValueError),
        ("create_sysv_semaphore", (), {"value": 1.0}, TypeError),
        ("open_sysv_semaphore", (2**31,), {}, ValueError),
        ("create_posix_semaphore", ("x",), {}, ValueError),
        ("create_posix_semaphore", (), {"value": -1}, ValueError),
        ("open_posix_semaphore", (3,), {}, TypeError),
        ("close", (3,), {}, TypeError),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_acquired(
    ipc: IpcManager,
    pid: int,
    method: str,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    error: type[Exception],
) -> None:
    """A clear error, and nothing owned."""
    with pytest.raises(error):
        getattr(ipc, method)(pid, *arguments, **keywords)

    assert pid not in ipc.table


@pytest.mark.parametrize(
    ("thing", "call"),
    [
        ("queue", lambda queue: queue.put(1, timeout=-1)),
        ("queue", lambda queue: queue.get(timeout="1")),
        ("queue", lambda queue: queue.put(1, priority=1)),
        ("priority_queue", lambda queue: queue.put(1, priority="1")),
        ("posix", lambda queue: queue.send(b"x", priority=32768)),
        ("posix", lambda queue: queue.send(b"x", priority="1")),
        ("posix", lambda queue: queue.send(bytes(10_000))),
        ("sysv", lambda queue: queue.send(b"x", type=0)),
        ("sysv", lambda queue: queue.send(b"x", type="1")),
        ("sysv", lambda queue: queue.send(bytes(10_000))),
        ("semaphore", lambda semaphore: semaphore.acquire(timeout=float("nan"))),
    ],
)
def test_bad_calls_are_refused(ipc: IpcManager, pid: int, thing: str, call: Any) -> None:
    """TypeError or ValueError, and the thing is as it was."""
    makers: dict[str, Callable[[], Any]] = {
        "queue": lambda: ipc.queue(pid, 1),
        "priority_queue": lambda: ipc.queue(pid, 1, kind=QueueKind.PRIORITY),
        "posix": lambda: ipc.create_posix_queue(pid),
        "sysv": lambda: ipc.create_sysv_queue(pid),
        "semaphore": lambda: ipc.create_sysv_semaphore(pid),
    }
    made = makers[thing]()

    with pytest.raises((TypeError, ValueError)):
        call(made)
