"""What goes on behind a job: tasks, executors' calls, and what a thread does for a future."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import inspect
import threading
from types import CellType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from probate.system import lazy_module, running_loop
from probate_tasks import stacks

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from types import FrameType

    #: A task, or an executor's future.
    Native = asyncio.Task[Any] | concurrent.futures.Future[Any]
    Work: TypeAlias = "Native | ThreadWork"
else:
    asyncio = lazy_module("asyncio")

#: How far callbacks are followed into what they refer to: two functions within each other.
_CALLBACK_DEPTH: Final = 4

#: How one gets rid of work, by who does it.
_TASK_GOES_ON: Final = "own it too, and it is cancelled with its owner"
_CALL_GOES_ON: Final = (
    "it cannot be stopped from outside: allow more grace, or have it look at an event"
)


@final
class ThreadWork:
    """What a thread was found at: in a call out of a function that holds the future.

    That is how anyio's worker threads, and most people's own, come to work for a future. The work
    is over when the thread has left the function, or has gone on in it.
    """

    def __init__(self, ident: int, holder: FrameType, callee: FrameType | None) -> None:
        #: Which thread it is.
        self.ident = ident
        self._at: tuple[FrameType, FrameType | None, int] | None = (holder, callee, holder.f_lasti)

    def __repr__(self) -> str:
        return "a call in a thread"

    def done(self) -> bool:
        """Whether the thread is no longer in that call."""
        at = self._at
        if at is not None and not self._is_still_at(*at):
            # The frames keep all that their functions had.
            self._at = at = None
        return at is None

    def stack(self) -> str:
        """Where the thread stands, within the function that holds the future."""
        at = self._at
        return stacks.NO_FRAMES if at is None else stacks.of_frame(self.ident, at[0])

    def _is_still_at(self, holder: FrameType, callee: FrameType | None, last: int) -> bool:
        below, frame = None, stacks.frame_of(self.ident)
        while frame is not None and frame is not holder:
            below, frame = frame, frame.f_back
        if frame is None:
            return False
        if callee is None and below is not None:
            # It was about to call.
            self._at = (holder, below, holder.f_lasti)
            return True
        return below is callee and (callee is not None or holder.f_lasti == last)


def threads_at(futures: Iterable[asyncio.Future[Any]]) -> dict[int, Work]:
    """What other threads work for these futures, by the future's id.

    A thread does that has one of them as a variable of the very function that it was started for,
    or as an attribute of the Thread itself; whoever holds one elsewhere may as well be waiting for
    it. An executor's thread does, whose own future will set it by a callback. To be asked when
    they are cancelled: whoever takes one up later will see that it is.
    """
    wanted = {id(future) for future in futures}
    found: dict[int, Work] = {}
    for ident, top in stacks.frames_of_others().items():
        below: FrameType | None = None
        frame: FrameType | None = top
        while frame is not None:
            if _is_started_for(frame):
                for name in wanted & _variables_of(frame):
                    found[name] = ThreadWork(ident, frame, below)
                call = getattr(frame.f_locals.get("work_item"), "future", None)
                if isinstance(call, concurrent.futures.Future):
                    for name in wanted & _set_by(call):
                        found[name] = call
            below, frame = frame, frame.f_back
    return found


def _is_started_for(frame: FrameType) -> bool:
    """Whether its function is what a thread was started for."""
    caller = frame.f_back
    if caller is None:
        return bool(frame.f_code.co_flags & inspect.CO_OPTIMIZED)
    file = threading.__file__
    return caller.f_code.co_filename == file and frame.f_code.co_filename != file


def _variables_of(frame: FrameType) -> set[int]:
    """The ids of a function's own variables, without those of functions around it."""
    theirs = frame.f_code.co_freevars
    values = [value for name, value in list(frame.f_locals.items()) if name not in theirs]
    for value in values[:]:
        if isinstance(value, threading.Thread):
            values += list(vars(value).values())
    return set(map(id, values))


def _set_by(call: concurrent.futures.Future[Any]) -> set[int]:
    """The ids of what the callbacks of a future refer to."""
    reached: list[object] = list(getattr(call, "_done_callbacks", ()))
    for _ in range(_CALLBACK_DEPTH):
        for each in reached[:]:
            if isinstance(each, functools.partial):
                reached += [each.func, *each.args]
            reached += getattr(each, "__closure__", None) or ()
            if isinstance(each, CellType):
                with contextlib.suppress(ValueError):
                    reached.append(each.cell_contents)
    return set(map(id, reached))


def is_finished(work: Work) -> bool:
    """Whether nothing of it runs any more, or ever will."""
    return work.done() or (asyncio.isfuture(work) and work.get_loop().is_closed())


def when_finished(
    work: asyncio.Future[Any] | concurrent.futures.Future[Any], callback: Callable[[object], object]
) -> None:
    """Have `callback` called, with the future, when a task or call is done."""
    if asyncio.isfuture(work) and (loop := work.get_loop()) is not running_loop():
        # A closed loop runs no callbacks, and no task.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(work.add_done_callback, callback)
    else:
        work.add_done_callback(callback)


def name_of_task(task: asyncio.Task[Any]) -> str:
    """A short text for a task: its name, and its function's."""
    coroutine = task.get_coro()
    function = getattr(coroutine, "__qualname__", None) or repr(coroutine)
    return f"task {task.get_name()!r} of {function}()"


def describe(work: Work) -> str:
    """What it is, how to be rid of it, and where it stands."""
    if isinstance(work, ThreadWork):
        return f"a call in a thread ({_CALL_GOES_ON}), which stands at\n{work.stack()}"
    if isinstance(work, asyncio.Future):
        return f"{name_of_task(work)} ({_TASK_GOES_ON}), which stands at\n{stacks.of_task(work)}"
    stack = stacks.of_executor_call(work)
    return f"a call in an executor ({_CALL_GOES_ON}), which stands at\n{stack}"
