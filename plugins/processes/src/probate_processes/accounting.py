"""What OS processes use, as psutil reads it from the kernel."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate import OsUsage


def os_usage(os_pids: Iterable[int]) -> OsUsage:
    """Sum up what these processes use; those that are gone by now use nothing."""
    # Late: most hosts never ask, and the two take longer to import than all of this plugin.
    import psutil

    from probate import OsUsage

    processes = threads = fds = rss = 0
    cpu = 0.0
    for os_pid in os_pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(os_pid)
            with process.oneshot():
                times = process.cpu_times()
                rss += process.memory_info().rss
                threads += process.num_threads()
            processes += 1
            cpu += times.user + times.system
            # Another user's are not ours to see.
            fds += process.num_fds()
    return OsUsage(processes=processes, threads=threads, fds=fds, rss=rss, cpu=cpu)
