"""`with manager.process(...)`: a process for as long as a block runs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, final

from probate.process.current import current

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from probate.process.process import Ender, Process


@final
class ProcessScope:
    """A context manager, sync and async, around one process, which is current inside.

    Leaving it terminates the process. What it still owns then has leaked, and is listed in the
    result as leaks, unless the block was left by an exception.
    """

    def __init__(self, manager: Ender, name: str, parent: int | Process | None) -> None:
        self._manager = manager
        self._name = name
        self._parent = parent
        self._process: Process | None = None
        self._token: Token[Process | None] | None = None

    def __enter__(self) -> Process:
        if self._process is not None:
            raise RuntimeError(f"the scope of {self._process!r} has been entered already")
        self._process = self._manager.create_process(self._name, self._parent)
        self._token = current.set(self._process)
        return self._process

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._manager.terminate(self._leave(), None, with_leaks=exc_type is None)

    async def __aenter__(self) -> Process:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._manager.terminate_async(self._leave(), None, with_leaks=exc_type is None)

    def _leave(self) -> Process:
        if self._process is None or self._token is None:
            raise RuntimeError("the scope was never entered")
        # Left in another context than it was entered in (an async generator that its loop
        # finalises, another thread): there is nothing to reset there (PEP 567).
        with contextlib.suppress(ValueError):
            current.reset(self._token)
        return self._process
