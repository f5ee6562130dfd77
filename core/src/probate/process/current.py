"""The current process: whom an acquisition without a pid is for.

It is kept in a context variable (PEP 567), so that every asyncio task and every thread has its own.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from contextvars import ContextVar
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    ParamSpec,
    Protocol,
    TypeVar,
    final,
    overload,
)

from probate.errors import NoCurrentProcessError
from probate.system.arguments import checked_int

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Token
    from typing import TypeGuard

    from probate.models import ResourceLimits
    from probate.process.process import Manager, Process

#: Set by `with manager.process(...)`.
_current: Final[ContextVar[Process | None]] = ContextVar("probate_current_process", default=None)


def current_process() -> Process:
    """Return the process that this context works for. Raises NoCurrentProcessError."""
    process = _current.get()
    if process is None:
        raise NoCurrentProcessError
    return process


def current_or_none() -> Process | None:
    """Return the process that this context works for, if it works for one."""
    return _current.get()


@contextlib.contextmanager
def working_for(process: Process) -> Iterator[Process]:
    """Make a process the current one for the length of a `with` block."""
    token = _current.set(process)
    try:
        yield process
    finally:
        _reset(token)


def _reset(token: Token[Process | None]) -> None:
    # Left in another context than it was entered in (an async generator that its loop
    # finalises, another thread): there is nothing to reset there (PEP 567).
    with contextlib.suppress(ValueError):
        _current.reset(token)


@final
class ProcessScope:
    """Creates a process for the length of a `with` or `async with` block, where it is current.

    Leaving the block terminates the process. What it still owns then has leaked, and is listed in
    the account as leaks, unless the block was left by an exception. Raises RuntimeError if it is
    entered twice, or left without having been entered.
    """

    def __init__(
        self,
        manager: Manager,
        name: str,
        parent: int | Process | None,
        limits: ResourceLimits | None = None,
        key: str | None = None,
    ) -> None:
        self._manager = manager
        self._name = name
        self._parent = parent
        self._limits = limits
        self._key = key
        self._process: Process | None = None
        self._token: Token[Process | None] | None = None

    def __enter__(self) -> Process:
        if self._process is not None:
            raise RuntimeError(f"the scope of {self._process!r} has been entered already")
        self._process = self._manager.create_process(
            self._name, self._parent, key=self._key, limits=self._limits
        )
        self._token = _current.set(self._process)
        return self._process

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        self._manager.terminate_process(self._leave(), with_leaks=exc_type is None)

    async def __aenter__(self) -> Process:
        return self.__enter__()

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        await self._manager.terminate_process_async(self._leave(), with_leaks=exc_type is None)

    def _leave(self) -> Process:
        if self._process is None or self._token is None:
            raise RuntimeError("the scope was never entered")
        _reset(self._token)
        return self._process


_S = TypeVar("_S")
_P = ParamSpec("_P")
_R_co = TypeVar("_R_co", covariant=True)


class _Bound(Protocol[_P, _R_co]):
    """A method whose pid may be left out."""

    @overload
    def __call__(self, pid: int | Process, /, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...
    @overload
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...


class _Method(Protocol[_S, _P, _R_co]):
    def __call__(self, owner: _S, /, *args: Any, **kwargs: Any) -> _R_co: ...
    @overload
    def __get__(self, owner: None, cls: type[_S]) -> _Method[_S, _P, _R_co]: ...
    @overload
    def __get__(self, owner: _S, cls: type[_S]) -> _Bound[_P, _R_co]: ...


def pid_or_current(
    method: Callable[Concatenate[_S, int, _P], _R_co],
) -> _Method[_S, _P, _R_co]:
    """Let a manager's method be called without its first argument, the pid.

    Without it, the current process is meant; a `Process` may stand for its pid. The pid counts as
    left out if the first argument is no int, or if too few arguments are given for it to be among
    them. The method raises NoCurrentProcessError if the pid is left out where no process is
    current, TypeError for a pid by name that is neither an int nor a `Process`.
    """
    # As inspect.signature has it, which takes as long as all the rest of a kind.
    function: Any = inspect.unwrap(method)
    code = function.__code__
    pid_name = code.co_varnames[1]
    required = code.co_varnames[1 : code.co_argcount - len(function.__defaults__ or ())]
    needed = len(required)

    @functools.wraps(method)
    def call(owner: _S, /, *args: Any, **kwargs: Any) -> _R_co:
        is_pid = bool(args) and isinstance(args[0], int) and not isinstance(args[0], bool)
        if is_pid and len(args) >= needed:
            return method(owner, *args, **kwargs)
        if pid_name in kwargs:
            pid = kwargs.pop(pid_name)
            pid = pid.pid if _is_process(pid) else checked_int(pid_name, pid)
        elif args and _is_process(args[0]):
            pid, args = args[0].pid, args[1:]
        elif is_pid and len(args) + sum(name in required for name in kwargs) >= needed:
            return method(owner, *args, **kwargs)
        else:
            pid = current_process().pid
        return method(owner, pid, *args, **kwargs)

    return call  # type: ignore[return-value]  # a function is such a descriptor


def _is_process(value: object) -> TypeGuard[Process]:
    # Imported late: every plugin's manager is decorated here, most before there is a process,
    # and the module of processes brings pydantic along.
    from probate.process.process import Process

    return isinstance(value, Process)
