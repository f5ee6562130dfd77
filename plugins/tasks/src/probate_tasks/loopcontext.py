"""Which event loop runs on this thread, and which of its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, final

from probate.system import lazy_module, running_loop

if TYPE_CHECKING:
    import asyncio
else:
    asyncio = lazy_module("asyncio")


@final
class LoopContext(NamedTuple):
    """The event loop that runs on this thread, if any, and the task that it runs just now."""

    loop: asyncio.AbstractEventLoop | None
    task: asyncio.Task[Any] | None

    @classmethod
    def find(cls) -> LoopContext:
        """Return that of the caller."""
        loop = running_loop()
        return cls(loop, None if loop is None else asyncio.current_task(loop))
