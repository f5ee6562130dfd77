"""The current process: whom an acquisition without a pid is for.

It is kept in a context variable (PEP 567), so that every asyncio task and every thread has its own.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, final

from probate.errors import NoCurrentProcessError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import Token

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
