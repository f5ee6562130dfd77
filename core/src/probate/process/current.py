"""The current process: whom an acquisition without a pid is for, and `with` blocks that set it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from probate.errors import NoCurrentProcessError
from probate.process.context import CURRENT, be_as_before

if TYPE_CHECKING:
    from contextvars import Token

    from probate.models import ResourceLimits
    from probate.process.process import Manager, Process


def current_process() -> Process:
    """Return the process that this context works for. Raises NoCurrentProcessError."""
    process: Process | None = CURRENT.get()
    if process is None:
        raise NoCurrentProcessError
    return process


def current_or_none() -> Process | None:
    """Return the process that this context works for, if it works for one."""
    process: Process | None = CURRENT.get()
    return process


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
        self._token = CURRENT.set(self._process)
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
        be_as_before(self._token)
        return self._process
