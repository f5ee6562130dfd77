"""What can be adopted: told by what it is, or by what it can do."""

from __future__ import annotations

import concurrent.futures
import inspect
import threading
from typing import TYPE_CHECKING, Any, Final

from probate.system import lazy_module, running_loop
from probate_tasks.call import ExecutorCall
from probate_tasks.following import last_of_chain
from probate_tasks.looptask import LoopTask
from probate_tasks.pools import ExecutorJob, ServerJob, WorkerPoolJob
from probate_tasks.status import is_future
from probate_tasks.timers import HandleJob, TimerJob

if TYPE_CHECKING:
    import asyncio

    from probate_tasks.job import Job
    from probate_tasks.watch import Watch
else:
    asyncio = lazy_module("asyncio")


#: By what anyio and trio scope tasks, and hand them out: cancel scopes, groups and nurseries,
#: handles, tasks of trio's, portals.
_SCOPES: Final = (
    ("cancel", "cancel_called"),
    ("start_soon", "cancel_scope"),
    ("cancel", "wait", "coro"),
    ("coro", "runner", "parent_nursery"),
    ("start_task_soon", "stop"),
)


def job_of(native: Any, watch: Watch) -> Job | None:
    """Make the job of what was made elsewhere; None for what is not of this kind.

    Raises ValueError for what cannot be adopted as it is.
    """
    if is_future(native):
        last = last_of_chain(native)
        if isinstance(last, asyncio.Future):
            return LoopTask(native, last)
        return ExecutorCall(native, last)
    if isinstance(native, threading.Timer):
        return TimerJob(native, watch)
    if isinstance(native, type):
        return None
    if _can(native, "cancel", "cancelled") and not _can(native, "done"):
        return HandleJob(native, _loop_of(native))
    if isinstance(native, concurrent.futures.Executor) or _is_like_an_executor(native):
        return ExecutorJob(native)
    if _can(native, "apply_async", "imap", "close", "terminate", "join"):
        return WorkerPoolJob(native)
    if _can(native, "get_server", "connect", "start", "register"):
        if not _can(native, "shutdown"):
            raise ValueError(f"not started here, so it has no process to end: {native!r}")
        return ServerJob(native)
    if any(_can(native, *names) for names in _SCOPES):
        raise ValueError(
            "only its own loop can tell it to end: adopt(thing, release=stop), where stop is a "
            f"coroutine function that calls cancel() there, or sets an event: {native!r}"
        )
    return None


def _can(native: object, *methods: str) -> bool:
    """Whether its class, or what it was given, has methods of all these names."""
    missing = object()
    # Found without being asked for: a property, or what stands in for anything, may do work.
    found = [inspect.getattr_static(native, name, missing) for name in methods]
    return missing not in found


def _is_like_an_executor(native: Any) -> bool:
    """Whether it shuts down as executors do: a client of a cluster may do so for everybody."""
    if not _can(native, "submit", "map", "shutdown"):
        return False
    return "wait" in inspect.signature(native.shutdown).parameters


def _loop_of(handle: object) -> asyncio.AbstractEventLoop:
    loop = getattr(handle, "_loop", None) or running_loop()
    if loop is None:
        raise ValueError(
            f"nothing tells its event loop: adopt it on the thread where that runs: {handle!r}"
        )
    return loop
