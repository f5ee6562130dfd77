"""How to make and release what no kind knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drivers import Driver

if TYPE_CHECKING:
    from probate import ResourceOrchestrator


class Handle:
    """Something with a `close`, as a library would have it."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def drivers(orchestrator: ResourceOrchestrator) -> dict[str, Driver]:
    """Drivers by name."""

    def adopt(pid: int) -> Any:
        handle = Handle()
        orchestrator.adopt(pid, handle, release=Handle.close)
        return handle

    return {"callback": Driver("callbacks", adopt, orchestrator.give_back)}
