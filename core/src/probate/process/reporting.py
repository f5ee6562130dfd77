"""The report of one manager: its processes, what they own, and what their OS processes use."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from probate.errors import ProbateError
from probate.process.status import Holding, HostReport, ProcessReport

if TYPE_CHECKING:
    from probate.models import ProcessInfo
    from probate.orchestrator import ResourceOrchestrator


def report(orchestrator: ResourceOrchestrator, processes: list[ProcessInfo]) -> HostReport:
    """Put together what there is to tell at this moment."""
    return HostReport(
        os_pid=os.getpid(),
        command=tuple(sys.orig_argv),
        processes=tuple(_report(orchestrator, process) for process in processes),
    )


def _report(orchestrator: ResourceOrchestrator, process: ProcessInfo) -> ProcessReport:
    try:
        usage = orchestrator.usage(process.pid)
    except ProbateError:
        usage = {}
    return ProcessReport(
        process=process,
        resources={
            kind: Holding(count=each.count, nbytes=each.nbytes) for kind, each in usage.items()
        },
        os=next((each.os for each in usage.values() if each.os is not None), None),
    )
