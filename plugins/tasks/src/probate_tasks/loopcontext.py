"""Which event loop runs on this thread, and which of its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, final

from probate.system.lazy import lazy_module

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
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return cls(None, None)
        return cls(loop, asyncio.current_task(loop))
