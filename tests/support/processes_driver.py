"""How to make, adopt, give back and end things of kind `processes`: for tests over all kinds."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from drivers import Driver

if TYPE_CHECKING:
    from probate import ResourceOrchestrator

SLEEP = ("sleep", "300")


def drivers(orchestrator: ResourceOrchestrator) -> dict[str, Driver]:
    """Drivers by name.

    None ends its process natively: that is noticed by itself, at a moment that no test chooses.
    """
    processes = orchestrator["processes"].manager

    def adopt(pid: int) -> Any:
        popen = subprocess.Popen(SLEEP)
        try:
            orchestrator.adopt(pid, popen)
        except BaseException:
            popen.kill()
            popen.wait()
            raise
        return popen

    return {
        "spawned process": Driver(
            "processes", lambda pid: processes.spawn(pid, SLEEP), processes.kill
        ),
        "adopted process": Driver("processes", adopt, processes.kill),
    }
