"""pid_or_current: methods whose pid may be left out, for the current process."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from probate.process.current import current_process
from probate.system.arguments import checked_int

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeGuard

    from probate.process.process import Process

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
