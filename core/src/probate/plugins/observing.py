"""What a live OS process holds, as all kinds see it from outside."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psutil

from probate.system.osprocess import stat_of

if TYPE_CHECKING:
    from probate.models import ResourceRecord
    from probate.plugins.registry import PluginRegistry

#: PF_EXITING (proc(5), /proc/PID/stat, flags): it is giving back, or has given back, all it held.
_IS_EXITING: Final = 0x4


def observed(registry: PluginRegistry, os_pid: int) -> list[ResourceRecord]:
    """Ask all kinds, in cleanup order.

    All of it or an error, since part of it would pass for all. Raises ProcessLookupError if the
    process has ended by the end, though nobody has waited for it, or another has its pid;
    PermissionError if it may not be looked into; what else a kind raises.
    """
    try:
        process = psutil.Process(os_pid)
        # Kinds that may not look would tell of nothing.
        os.listdir(f"/proc/{os_pid}/fd")  # noqa: PTH208  names are all that is asked for
        with process.oneshot():
            answers = registry.plugin_manager.hook.observe(process=process)
            records = [record for answer in answers for record in answer]
        if process.is_running() and not _is_exiting(os_pid):
            return records
    except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
        pass
    except (psutil.AccessDenied, PermissionError) as error:
        # Of a zombie, not even its own user may list what it has open: nothing.
        if not _is_exiting(os_pid):
            raise PermissionError(f"not permitted to look into OS process {os_pid}") from error
    if _is_exiting(os_pid):
        raise ProcessLookupError(f"OS process {os_pid} has ended")
    raise ProcessLookupError(f"there is no OS process {os_pid}")


def _is_exiting(os_pid: int) -> bool:
    """Tell whether a process has ended, or a zombie is left of it."""
    with suppress(ProcessLookupError):
        return bool(int(stat_of(os_pid)[6]) & _IS_EXITING)
    return False
