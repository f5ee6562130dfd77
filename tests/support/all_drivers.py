"""How to make, adopt, release and break a resource of each of the kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import callbacks_driver
import drivers
import files_driver
import ipc_driver
import memory_driver
import processes_driver
import scheduler_driver

if TYPE_CHECKING:
    from drivers import Driver, LoopThread

    from probate import ResourceOrchestrator


def all_drivers(orchestrator: ResourceOrchestrator, loop: LoopThread) -> dict[str, Driver]:
    """Drivers by name, of every kind."""
    modules: tuple[Any, ...] = (
        callbacks_driver,
        files_driver,
        ipc_driver,
        memory_driver,
        processes_driver,
        scheduler_driver,
    )
    found = drivers.drivers(orchestrator, loop)
    for module in modules:
        found |= module.drivers(orchestrator)
    return found
