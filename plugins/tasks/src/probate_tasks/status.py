"""What has become of a task, a call, a future."""

from __future__ import annotations

import concurrent.futures
import inspect
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from probate.system import lazy_module

if TYPE_CHECKING:
    import asyncio
    import multiprocessing.managers
    import multiprocessing.pool
    import threading

    from typing_extensions import TypeIs

    #: A task is a future of asyncio's.
    Future = asyncio.Future[Any] | concurrent.futures.Future[Any]

    #: What a process can own; and whatever else can do what these can, such as uvloop's handles.
    Native = (
        Future
        | threading.Timer
        | asyncio.Handle
        | concurrent.futures.Executor
        | multiprocessing.pool.Pool
        | multiprocessing.managers.BaseManager
    )
else:
    asyncio = lazy_module("asyncio")


class TaskStatus(StrEnum):
    """How far a task or call has come."""

    #: Not yet started: no step taken, or no thread free.
    PENDING = "pending"
    #: Started, and not over.
    RUNNING = "running"
    #: Returned.
    DONE = "done"
    #: Ended by a cancellation.
    CANCELLED = "cancelled"
    #: Raised; the native object has the exception.
    FAILED = "failed"


def is_future(value: object) -> TypeIs[Future]:
    """Whether it is a future of asyncio's, such as a task, or one for threads."""
    return isinstance(value, (asyncio.Future, concurrent.futures.Future))


def status_of(native: Future) -> TaskStatus:
    """The status of a task or future, asked from any thread.

    asyncio takes the exception of a failed one for retrieved by this, and will not log it.
    """
    if native.cancelled():
        return TaskStatus.CANCELLED
    if native.done():
        return TaskStatus.DONE if native.exception() is None else TaskStatus.FAILED
    if isinstance(native, concurrent.futures.Future):
        has_started = native.running()
    else:
        has_started = isinstance(native, asyncio.Task) and _has_started(native)
    return TaskStatus.RUNNING if has_started else TaskStatus.PENDING


def _has_started(task: asyncio.Task[Any]) -> bool:
    coroutine = task.get_coro()
    return (
        not inspect.iscoroutine(coroutine)
        or inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED
    )
