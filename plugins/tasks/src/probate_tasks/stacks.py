"""Where a task or a thread stands, read without stopping it.

It may go on meanwhile; a stack is what it was at some moment of the reading.
"""

from __future__ import annotations

import concurrent.futures.thread
import functools
import gc
import sys
import threading
import traceback
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

#: Frames shown; the innermost tell the most.
_DEPTH: Final = 12

#: Whose work items have their future as an attribute: the standard library's, and ours.
_CALLERS: Final = (
    concurrent.futures.thread.__file__,
    str(Path(__file__).with_name("call.py")),
)

#: Said before a stack.
CANNOT_STOP: Final = "it still runs, and cannot be stopped from outside; it stands at"

#: Said where there is nothing to show: not started, or in C code.
NO_FRAMES: Final = "  (no Python frame)"


def of_task(task: asyncio.Task[Any]) -> str:
    """The whole chain of awaits, outermost first, as in a traceback.

    `Task.get_stack` gives the outermost coroutine alone.
    """
    frames = [frame for _, frame in awaits_of(task.get_coro())]
    if frames:
        # The innermost coroutine may be running just now, and its loop be blocked in it.
        innermost = frames[-1]
        for top in frames_of_others().values():
            if inward := _inward(top, lambda frame: frame is innermost):
                frames += inward
                break
    return _format(frames)


def of_thread(ident: int, *entrances: Callable[..., object]) -> str:
    """What a thread runs within the first of these functions that shows anything."""
    top = frames_of_others().get(ident)
    for entrance in entrances:
        if inward := _inward(top, functools.partial(_runs, entrance.__code__)):
            return _format(inward)
    return NO_FRAMES


def of_frame(ident: int, frame: FrameType) -> str:
    """What a thread runs in a function, from there on; nothing if it has left the function."""
    inward = _inward(frames_of_others().get(ident), lambda each: each is frame)
    return NO_FRAMES if inward is None else _format([frame, *inward])


def awaits_of(awaitable: object) -> Iterator[tuple[object, FrameType]]:
    """Yield what a coroutine awaits, and what that awaits, with their frames; outermost first."""
    for _ in range(sys.getrecursionlimit()):
        frame, inner = _suspended(awaitable)
        if frame is None:
            # It may be what `__await__` of a coroutine, or `anext`, puts around another.
            inner = next(
                (each for each in gc.get_referents(awaitable) if _is_coroutine(each)), None
            )
        else:
            yield awaitable, frame
        if inner is None:
            return
        awaitable = inner


def of_executor_call(future: concurrent.futures.Future[Any]) -> str:
    """What some `ThreadPoolExecutor` runs for `future`; other executors do not tell."""
    for top in frames_of_others().values():
        if (inward := _inward(top, lambda frame: _works_for(frame, future))) is not None:
            return _format(inward)
    return NO_FRAMES


def is_executor_call_of(ident: int, future: concurrent.futures.Future[Any]) -> bool:
    """Whether this thread is what makes the call that `future` stands for."""
    return _inward(_frames().get(ident), lambda frame: _works_for(frame, future)) is not None


def is_call_of_handle_here(handle: object) -> bool:
    """Whether the caller of this is what an event loop calls for `handle`."""
    run = getattr(type(handle), "_run", None)
    code = getattr(run, "__code__", None)
    return code is not None and any(
        frame.f_code is code and frame.f_locals.get("self") is handle
        for frame in _outward(_frames().get(threading.get_ident()))
    )


def is_at_work(ident: int) -> bool:
    """Whether a worker thread has something to do; one of a pool not known here always has."""
    pool = sys.modules.get("multiprocessing.pool")
    for frame in _outward(frame_of(ident)):
        code = frame.f_code
        if code is concurrent.futures.thread._WorkItem.run.__code__:  # noqa: SLF001
            return True
        if code is concurrent.futures.thread._worker.__code__:  # noqa: SLF001
            return False
        if pool is not None and code is pool.worker.__code__:
            return frame.f_locals.get("func") is not None
    return True


def is_worker_of(ident: int, executor: object) -> bool:
    """Whether a thread is a worker of this `ThreadPoolExecutor`."""
    for frame in _outward(frame_of(ident)):
        if frame.f_code is concurrent.futures.thread._worker.__code__:  # noqa: SLF001
            reference = frame.f_locals.get("executor_reference")
            return callable(reference) and reference() is executor
    return False


def of_worker(ident: int) -> str:
    """What a worker thread has to do."""
    pool = sys.modules.get("multiprocessing.pool")
    entrances: list[Callable[..., object]] = [concurrent.futures.thread._WorkItem.run]  # noqa: SLF001
    if pool is not None:
        entrances.append(pool.worker)
    return of_thread(ident, *entrances, threading.Thread.run)


def name_of(function: object) -> str:
    """A short text for a function."""
    return getattr(function, "__qualname__", None) or repr(function)


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _runs(code: CodeType, frame: FrameType) -> bool:
    return frame.f_code is code


def _works_for(frame: FrameType, future: concurrent.futures.Future[Any]) -> bool:
    # A work item's `run(self)`: the item is the one place that ties a thread to a future.
    if frame.f_code.co_name != "run" or frame.f_code.co_filename not in _CALLERS:
        return False
    return getattr(frame.f_locals.get("self"), "future", None) is future


def _frames() -> dict[int, FrameType]:
    """The innermost frame of each thread. One's own, kept in a variable, would be a cycle."""
    return sys._current_frames()  # noqa: SLF001  documented, and for debugging like this


def frame_of(ident: int) -> FrameType | None:
    """The innermost frame of a thread; of this one, that of who asks."""
    if ident == threading.get_ident():
        return sys._getframe(1)  # noqa: SLF001  as above
    return _frames().get(ident)


def frames_of_others() -> dict[int, FrameType]:
    """The innermost frame of each thread but this one."""
    frames = _frames()
    del frames[threading.get_ident()]
    return frames


def _suspended(awaitable: object) -> tuple[FrameType | None, object]:
    """The frame of a coroutine or generator, and what it awaits (inspect, "Types and members")."""
    for prefix, awaits in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
        frame: FrameType | None = getattr(awaitable, f"{prefix}_frame", None)
        if frame is not None:
            return frame, getattr(awaitable, awaits, None)
    return None, None


def _is_coroutine(value: object) -> bool:
    return isinstance(value, (CoroutineType, GeneratorType, AsyncGeneratorType))


def _inward(
    top: FrameType | None, is_entrance: Callable[[FrameType], bool]
) -> list[FrameType] | None:
    """The frames of a thread within an entrance, outermost first; None if it is not inside."""
    inward: list[FrameType] = []
    frame = top
    while frame is not None:
        if is_entrance(frame):
            return inward[::-1]
        inward.append(frame)
        frame = frame.f_back
    return None


def _format(frames: list[FrameType]) -> str:
    if not frames:
        return NO_FRAMES
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames[-_DEPTH:])
    return "".join(summary.format()).rstrip()
