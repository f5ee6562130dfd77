"""Place: where objects are made, and what is put away when they have been tried."""

from __future__ import annotations

import contextlib
import importlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tasks_loops import LoopThread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import ProcessManager


class Place(contextlib.ExitStack):
    """A folder, event loops that run on threads of their own, and what undoes all of it."""

    def __init__(self, folder: Path, manager: ProcessManager) -> None:
        super().__init__()
        self.folder = folder
        self.manager = manager

    @cached_property
    def loop(self) -> LoopThread:
        """An event loop of asyncio's."""
        return self.enter_context(LoopThread())

    @cached_property
    def uvloop(self) -> LoopThread:
        """An event loop of uvloop's."""
        import uvloop

        return self.enter_context(LoopThread(uvloop.new_event_loop()))

    @staticmethod
    def library(name: str) -> Any:
        """A module that need not be there."""
        return importlib.import_module(name)

    def file(self, name: str = "file", content: bytes = b"content") -> Path:
        """A file of that name and content."""
        path = self.folder / name
        path.write_bytes(content)
        return path

    def finally_(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call it at the end, whatever it raises: the object may be gone by then."""

        def call() -> None:
            with contextlib.suppress(Exception):
                function(*arguments)

        self.callback(call)
