"""`PROBATE_TRACE=1`: pluggy's call trace on standard error."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probate.orchestrator import ResourceOrchestrator


def trace_if_asked(orchestrator: ResourceOrchestrator) -> None:
    """Write every hook call to standard error if PROBATE_TRACE is set, and not 0 or empty."""
    if os.environ.get("PROBATE_TRACE", "0") not in {"", "0"}:
        orchestrator.plugin_manager.trace.root.setwriter(sys.stderr.write)
        orchestrator.plugin_manager.enable_tracing()
