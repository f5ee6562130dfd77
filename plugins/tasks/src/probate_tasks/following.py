"""What goes on behind a task or future when that is cancelled.

A cancelled task is done; the thread that it awaited is not, nor is what it shielded, nor, for a
future that only stands in front of another, the one behind. asyncio tells nobody what is tied to
what: a coroutine's frames, the tasks that its groups have started, and the callbacks that tie
futures together are all there is to see. Where they cannot be seen, a future is taken at its word.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import gc
import opcode
from types import CellType, CoroutineType, GeneratorType, MethodType
from typing import TYPE_CHECKING, Any, Final, cast, final

from probate.system import lazy_module
from probate_tasks import stacks
from probate_tasks.status import is_future

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from types import CodeType

    from probate_tasks.status import Future
    from probate_tasks.work import Native
else:
    asyncio = lazy_module("asyncio")

#: Where `asyncio.wait` and its like keep what they wait for in their own frames.
_COLLECTIONS: Final = (set, frozenset, list, tuple)

#: How many context managers within each other are looked into.
_DEPTH: Final = 4


def look_behind(future: Future, is_owned: Callable[[object], bool]) -> Behind | None:
    """Find what is behind a task or future, on its loop, before it is cancelled; None if nothing.

    Most tasks sleep, or wait for an event, a queue or a stream, and are told from the rest soon.
    """
    if isinstance(future, asyncio.Task) and _only_waits(future):
        return None
    return Behind(future, is_owned)


@final
class Behind:
    """What was found behind one task or future."""

    __slots__ = ("_is_owned", "_loop", "_met", "_seen", "promises", "work")

    def __init__(self, future: Future, is_owned: Callable[[object], bool]) -> None:
        self._is_owned = is_owned
        self._loop = future.get_loop() if asyncio.isfuture(future) else None
        self._seen = {id(future)}
        #: Met, and not looked behind; with whether it may be a thread that sets it.
        self._met: list[tuple[Future, bool]] = [(future, self._loop is not None)]
        #: Tasks and calls that may go on.
        self.work: list[Native] = []
        #: Futures that somebody unknown is going to set: a thread, perhaps.
        self.promises: list[asyncio.Future[Any]] = []
        while self._met:
            future, is_promise = self._met.pop()
            if not self._look_behind(future) and is_promise:
                self.promises.append(cast("asyncio.Future[Any]", future))

    def _meet(self, future: Future, is_promise: bool = False) -> None:
        """Note what is awaited, to be looked behind; what has an owner is its owner's."""
        if id(future) in self._seen or future.done():
            return
        self._seen.add(id(future))
        if self._is_owned(future):
            return
        if isinstance(future, (asyncio.Task, concurrent.futures.Future)):
            self.work.append(future)
        self._met.append((future, is_promise))

    def _look_behind(self, future: Future) -> bool:
        """Look at what `future` depends on; whether that could be found out."""
        if isinstance(future, asyncio.Task):
            # Only its own loop knows where another loop's task stands.
            if future.get_loop() is self._loop:
                self._look_at_task(future)
            return True
        members = getattr(future, "_children", None)  # asyncio.gather
        if members is not None:
            self._meet_all(members)
            return True
        source = source_of(future)
        if source is not None:
            self._meet(source)
        return source is not None

    def _look_at_task(self, task: asyncio.Task[Any]) -> None:
        code = None
        for awaitable, frame in stacks.awaits_of(task.get_coro()):
            code = frame.f_code
            if code is not _sleep_code():
                self._look_at_frame(task, awaitable, _is_asyncios(code))
        waits_for = getattr(task, "_fut_waiter", None)
        if waits_for is not None:
            # What asyncio's own locks, queues and streams wait for is set by its own code.
            is_promise = code is None or not code.co_filename.startswith(_asyncio_folder())
            self._meet(waits_for, is_promise)

    def _look_at_frame(self, task: asyncio.Task[Any], awaitable: object, is_asyncio: bool) -> None:
        """Look at what a suspended coroutine holds: its variables, and contexts it has entered."""
        for held in gc.get_referents(awaitable):
            if isinstance(held, MethodType):
                self._look_at_context(task, held.__self__)
                continue
            self._look_at_context(task, held)
            if is_asyncio:
                self._look_at_variable(held)

    def _look_at_variable(self, held: object) -> None:
        if isinstance(held, CellType):
            with contextlib.suppress(ValueError):
                held = held.cell_contents
        if isinstance(held, _COLLECTIONS):
            self._meet_all(held)
        elif is_future(held):
            self._meet(held)

    def _look_at_context(
        self, task: asyncio.Task[Any], context: object, depth: int = _DEPTH
    ) -> None:
        """Look at a context manager that the task has entered, perhaps; at others, not further."""
        cls: Any = type(context)
        sort = _sort_of(cls)
        if sort is None or depth < 0:
            return
        if sort == "group":
            if _parent_of(context) is task:
                self._meet_all(list(getattr(context, "_tasks", ())))
        elif sort == "stack":
            for _, leave in list(getattr(context, "_exit_callbacks", ())):
                self._look_at_context(task, getattr(leave, "__self__", None), depth - 1)
        elif sort == "generator":
            for awaitable, _ in stacks.awaits_of(getattr(context, "gen", None)):
                self._look_at_frame(task, awaitable, is_asyncio=False)
        elif sort == "iterator":
            if isinstance(context, GeneratorType) and _is_asyncios(context.gi_code):
                for held in gc.get_referents(context):
                    self._look_at_variable(held)
            self._look_at_variable(getattr(context, "_todo", None))
        else:
            for held in list(getattr(context, "__dict__", {}).values()):
                self._look_at_context(task, held, depth - 1)

    def _meet_all(self, members: Iterable[object]) -> None:
        for member in list(members):
            if is_future(member):
                self._meet(member)


def unfinished_members(future: Future) -> list[asyncio.Future[Any]]:
    """Those of a `gather` that are not done."""
    return [each for each in getattr(future, "_children", ()) if not each.done()]


def last_of_chain(future: Future) -> Future:
    """The future that is not done before the work is, behind one that only stands in front."""
    while (source := _chained_to(future)) is not None:
        future = source
    return future


def source_of(future: Future) -> Future | None:
    """What `future` is tied to, so that it is done when that is; None if it stands for itself."""
    return _tied(future, ("_chain_future.", "source"), ("shield.", "inner"), _PORTAL)


def _chained_to(future: Future) -> Future | None:
    """As `source_of`; but to own what is shielded would be to end it."""
    return _tied(future, ("_chain_future.", "source"), _PORTAL)


#: A portal of anyio's makes a task, which whoever cancels the future in front has cancelled.
_PORTAL: Final = ("BlockingPortal._call_func.", "scope")


def _tied(future: Future, *ties: tuple[str, str]) -> Future | None:
    for callback in _callbacks(future):
        name = getattr(callback, "__qualname__", "")
        for prefix, variable in ties:
            if name.startswith(prefix):
                found = _variable_of(callback, variable)
                found = getattr(found, "_host_task", found)
                if is_future(found) and found is not future:
                    return found
    return None


def _callbacks(future: Future) -> Iterable[Any]:
    for_loops = getattr(future, "_callbacks", None)
    if for_loops is not None:
        return [callback for callback, _ in for_loops]
    return list(getattr(future, "_done_callbacks", ()))


def _variable_of(function: Any, name: str) -> object:
    names = function.__code__.co_freevars
    if name not in names:
        return None
    try:
        return function.__closure__[names.index(name)].cell_contents
    except ValueError:
        return None


def _parent_of(group: object) -> object:
    """The task that has entered a task group, asyncio's or anyio's."""
    parent = getattr(group, "_parent_task", None)
    if parent is None:
        parent = getattr(getattr(group, "cancel_scope", None), "_host_task", None)
    return parent


@functools.lru_cache(maxsize=1024)
def _sort_of(cls: Any) -> str | None:
    """What sort of context manager a class makes, as far as work may be behind it."""
    names = [base.__name__ for base in cls.__mro__]
    if "TaskGroup" in names:
        return "group"
    if "AsyncExitStack" in names:
        return "stack"
    if "_AsyncGeneratorContextManager" in names:
        return "generator"
    if cls is GeneratorType or "_AsCompletedIterator" in names:
        return "iterator"
    return "other" if hasattr(cls, "__aexit__") else None


def _only_waits(task: asyncio.Task[Any]) -> bool:
    """Whether it waits for what asyncio's own code will set, in functions that hold no context."""
    coroutine: Any = task.get_coro()
    while type(coroutine) is CoroutineType:
        code = coroutine.cr_code
        if code is _sleep_code():
            return True
        if not _is_plain(code):
            return False
        coroutine = coroutine.cr_await
        if type(coroutine) is not CoroutineType:
            return code.co_filename in _waiting_files()
    return False


def _is_plain(code: CodeType) -> bool:
    """Whether a function enters no context, and loops over nothing, that work may be behind."""
    known = _plain.get(id(code))
    if known is None:
        if len(_plain) >= _PLAIN_SIZE:
            _plain.clear()
        is_plain = not _is_asyncios(code) and _LOOKED_AT.isdisjoint(code.co_code[::2])
        # With the code, so that no other has its address.
        known = _plain[id(code)] = is_plain, code
    return known[0]


#: Codes by address, since to hash a code is to hash all that is in it.
_plain: Final[dict[int, tuple[bool, CodeType]]] = {}
_PLAIN_SIZE: Final = 4096

#: Instructions of `async with`, and of loops; in each version those that it has.
_LOOKED_AT: Final = frozenset(
    number
    for name, number in opcode.opmap.items()
    if name in {"BEFORE_ASYNC_WITH", "LOAD_SPECIAL", "GET_AITER", "GET_ITER"}
)


@functools.cache
def _sleep_code() -> CodeType:
    return asyncio.sleep.__code__


def _is_asyncios(code: CodeType) -> bool:
    """Whether it is of `asyncio.wait`, `wait_for`, `as_completed`."""
    return code.co_filename == _sleep_code().co_filename


@functools.cache
def _waiting_files() -> frozenset[str]:
    """Where asyncio waits for what its own code will set."""
    return frozenset(_asyncio_folder() + name for name in ("locks.py", "queues.py", "streams.py"))


@functools.cache
def _asyncio_folder() -> str:
    return _sleep_code().co_filename.removesuffix("tasks.py")
