"""Where a task or a thread stands, read without stopping it.

It may go on meanwhile; a stack is what it was at some moment of the reading.
"""

from __future__ import annotations

import concurrent.futures.thread
import functools
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import CodeType, FrameType

#: Frames shown; the innermost tell the most.
_DEPTH: Final = 12

#: Said where there is nothing to show: not started, or in C code.
_NO_FRAMES: Final = "  (no Python frame)"


def of_task(task: asyncio.Task[Any]) -> str:
    """The whole chain of awaits, outermost first, as in a traceback.

    `Task.get_stack` gives the outermost coroutine alone.
    """
    frames: list[FrameType] = []
    awaitable: object = task.get_coro()
    while awaitable is not None and len(frames) < sys.getrecursionlimit():
        frame, inner = _suspended(awaitable)
        if frame is None:
            break
        frames.append(frame)
        awaitable = inner
    if frames:
        # The innermost coroutine may be running just now, and its loop be blocked in it.
        innermost = frames[-1]
        for top in _other_threads().values():
            if inward := _inward(top, lambda frame: frame is innermost):
                frames += inward
                break
    return _format(frames)


def of_thread(ident: int, *entrances: Callable[..., object]) -> str:
    """What a thread runs within the first of these functions that shows anything."""
    top = _other_threads().get(ident)
    for entrance in entrances:
        if inward := _inward(top, functools.partial(_runs, entrance.__code__)):
            return _format(inward)
    return _NO_FRAMES


def of_executor_call(future: concurrent.futures.Future[Any]) -> str:
    """What some `ThreadPoolExecutor` runs for `future`; other executors do not tell."""
    for top in _other_threads().values():
        if (inward := _inward(top, lambda frame: _works_for(frame, future))) is not None:
            return _format(inward)
    return _NO_FRAMES


def is_executor_call_here(future: concurrent.futures.Future[Any]) -> bool:
    """Whether the caller of this is what some `ThreadPoolExecutor` runs for `future`."""
    return _inward(_frames()[threading.get_ident()], lambda f: _works_for(f, future)) is not None


def _runs(code: CodeType, frame: FrameType) -> bool:
    return frame.f_code is code


def _works_for(frame: FrameType, future: concurrent.futures.Future[Any]) -> bool:
    if frame.f_code.co_filename != concurrent.futures.thread.__file__:
        return False
    # A work item's `run(self)`: the item is the one place that ties a thread to a future.
    return getattr(frame.f_locals.get("self"), "future", None) is future


def _frames() -> dict[int, FrameType]:
    """The innermost frame of each thread. One's own, kept in a variable, would be a cycle."""
    return sys._current_frames()  # noqa: SLF001  documented, and for debugging like this


def _other_threads() -> dict[int, FrameType]:
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
        return _NO_FRAMES
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames[-_DEPTH:])
    return "".join(summary.format()).rstrip()
