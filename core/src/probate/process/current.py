"""The current process: whom an acquisition without a pid is for.

A context variable (PEP 567), so that every asyncio task and every thread has its own.
"""

from __future__ import annotations

import functools
import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, overload

from probate.errors import NoCurrentProcessError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeGuard

    from probate.process.process import Process

#: Set by `with manager.process(...)`.
current: Final[ContextVar[Process | None]] = ContextVar("probate_current_process", default=None)


def current_process() -> Process:
    """The process that this context works for. Raises NoCurrentProcessError if there is none."""
    process = current.get()
    if process is None:
        raise NoCurrentProcessError
    return process


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

    The current process is then meant. It is left out if the first argument is no int, or if too
    few arguments are given for the pid to be among them. A `Process` stands for its pid.
    NoCurrentProcessError is raised if it is left out where no process is current, TypeError for
    a pid by name that is none.
    """
    parameters = list(inspect.signature(method).parameters.values())[1:]
    pid_name = parameters[0].name
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    needed = len(required)

    @functools.wraps(method)
    def call(owner: _S, /, *args: Any, **kwargs: Any) -> _R_co:
        is_pid = bool(args) and isinstance(args[0], int) and not isinstance(args[0], bool)
        if is_pid and len(args) >= needed:
            return method(owner, *args, **kwargs)
        if pid_name in kwargs:
            pid = kwargs.pop(pid_name)
            if _is_process(pid):
                pid = pid.pid
            if not isinstance(pid, int):
                raise TypeError(f"{pid_name} must be an int, got {pid!r}")
        elif args and _is_process(args[0]):
            pid, args = args[0].pid, args[1:]
        elif is_pid and len(args) + sum(name in required for name in kwargs) >= needed:
            return method(owner, *args, **kwargs)
        else:
            pid = current_process().pid
        return method(owner, pid, *args, **kwargs)

    return call  # type: ignore[return-value]  # a function is such a descriptor


def _is_process(value: object) -> TypeGuard[Process]:
    # Looked up late: every plugin's manager is decorated here, most before there is a process,
    # and the module of processes brings pydantic along.
    from probate.process.process import Process

    return isinstance(value, Process)
