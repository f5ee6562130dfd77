"""Limits that the kernel enforces on a spawned process."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from probate import ResourceLimits
    from probate_processes.cgroup import Cgroup

    #: Resource to soft and hard limit, as resource.setrlimit wants them.
    Rlimits = Mapping[int, tuple[int, int]]


def limit_tree(limits: ResourceLimits | None, cgroup: Cgroup | None) -> Rlimits:
    """Limit a cgroup that is still empty, as far as it can; return what is left for rlimits.

    Raises ValueError for a limit that nothing here would enforce.
    """
    rlimits: dict[int, tuple[int, int]] = {}
    if limits is None:
        return rlimits
    if limits.cpu is not None:
        # First a SIGXCPU, which it may handle, and a second later the end.
        rlimits[resource.RLIMIT_CPU] = (limits.cpu, limits.cpu + 1)
    if limits.memory is not None and not (cgroup and cgroup.limit("memory", limits.memory)):
        rlimits[resource.RLIMIT_AS] = (limits.memory, limits.memory)
    if limits.pids is not None and not (cgroup and cgroup.limit("pids", limits.pids)):
        if os.geteuid() == 0:
            raise ValueError(
                f"a limit of {limits.pids} pids cannot be enforced: RLIMIT_NPROC does not bind "
                "root (getrlimit(2)), and no cgroup v2 pids controller can be used here"
            )
        rlimits[resource.RLIMIT_NPROC] = (limits.pids, limits.pids)
    return rlimits


def set_rlimits(os_pid: int, rlimits: Rlimits) -> None:
    """Lower the limits of a process that has just been started; its children inherit them.

    A child of this host that is not reaped yet, so that the pid is its own. Lower limits that it
    has already stay. It may have exited by now.
    """
    for which, (soft, hard) in rlimits.items():
        with contextlib.suppress(ProcessLookupError):
            _, ceiling = resource.prlimit(os_pid, which)
            if ceiling == resource.RLIM_INFINITY:
                ceiling = hard
            lowered = (min(soft, ceiling), min(hard, ceiling))
            resource.prlimit(os_pid, which, lowered)
