"""What a live OS process holds, as all kinds see it from outside."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from probate.models import ResourceRecord
    from probate.plugins.registry import PluginRegistry


def observed(registry: PluginRegistry, os_pid: int) -> list[ResourceRecord]:
    """Ask all kinds, in cleanup order.

    All of it or an error, since part of it would pass for all. Raises ProcessLookupError if the
    process is gone by the end, or another has its pid; PermissionError if it may not be looked
    into; what else a kind raises.
    """
    try:
        process = psutil.Process(os_pid)
        # Kinds that may not look would tell of nothing.
        os.listdir(f"/proc/{os_pid}/fd")  # noqa: PTH208  names are all that is asked for
        with process.oneshot():
            answers = registry.plugin_manager.hook.observe(process=process)
            records = [record for answer in answers for record in answer]
        if process.is_running():
            return records
    except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
        pass
    except (psutil.AccessDenied, PermissionError) as error:
        raise PermissionError(f"not permitted to look into OS process {os_pid}") from error
    raise ProcessLookupError(f"there is no OS process {os_pid}")
