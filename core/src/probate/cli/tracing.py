"""pluggy's call trace on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probate.orchestrator import ResourceOrchestrator


def trace(orchestrator: ResourceOrchestrator) -> None:
    """Write every hook call to standard error from now on."""
    orchestrator.plugin_manager.trace.root.setwriter(sys.stderr.write)
    orchestrator.plugin_manager.enable_tracing()
