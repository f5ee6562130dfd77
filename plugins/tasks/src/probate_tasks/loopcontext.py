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


def required_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that runs on this thread. Raises RuntimeError where none does."""
    if (loop := running_loop()) is None:
        raise RuntimeError(
            "spawn needs an event loop that runs on this thread; from another thread, have the "
            "loop call it: loop.call_soon_threadsafe(manager.spawn, pid, coroutine)"
        )
    return loop
