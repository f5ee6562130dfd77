"""Which limit of the kernel keeps a queue or semaphore from being made, and how to mend that.

System calls tell an error, and several limits share one (mq_open(3), msgget(2), semget(2)).
"""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    #: By error, what to say of it; empty if that is none of these limits.
    Limits = Mapping[int, Callable[[], str]]

_SYSCTL: Final = Path("/proc/sys")


def setting(name: str) -> int:
    """Read a number by its name in sysctl(8), such as kernel.msgmax (proc(5)). Raises OSError."""
    return int((_SYSCTL / name.replace(".", "/")).read_text())


def _shown(name: str) -> str:
    """A setting with its value, if that can be read."""
    try:
        value = (_SYSCTL / name.replace(".", "/")).read_text()
    except OSError:
        return name
    return f"{name} is {' '.join(value.split())}"


def _too_many_posix_queues() -> str:
    return (
        f"there are as many as there may be ({_shown('fs.mqueue.queues_max')}): unlink some, or "
        "raise it by sysctl(8)"
    )


def _too_many_bytes_of_queues() -> str:
    """Whether it is RLIMIT_MSGQUEUE: EMFILE stands for two (mq_overview(7), "Resource limit")."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        # It is the number of open descriptors.
        return ""
    limit = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0]
    return (
        f"more than is left of the {limit} bytes for all queues of this user, in all programs "
        "(RLIMIT_MSGQUEUE): ask for less, or raise it with `ulimit -q`"
    )


def too_large_a_posix_queue() -> str:
    """Say how large a POSIX queue may be."""
    count, size = _shown("fs.mqueue.msg_max"), _shown("fs.mqueue.msgsize_max")
    return (
        f"more than the system allows ({count}, {size}): ask for less, or raise them by sysctl(8)"
    )


def _too_many_sysv_queues() -> str:
    return (
        f"there are as many as there may be ({_shown('kernel.msgmni')}): remove some (ipcrm(1)), "
        "or raise it by sysctl(8)"
    )


def _too_many_sysv_semaphores() -> str:
    return (
        f"there are as many sets (SEMMNI), or as many in all (SEMMNS), as there may be "
        f"({_shown('kernel.sem')}): remove some (ipcrm(1)), or raise it by sysctl(8)"
    )


def _too_many_in_a_set() -> str:
    return f"more than a set may have (SEMMSL, {_shown('kernel.sem')}): raise it by sysctl(8)"


def _no_room_in_shm() -> str:
    return "no room in /dev/shm, where they are kept: free some, or enlarge it"


def _no_shm() -> str:
    return "there is no /dev/shm, where they are kept: mount a tmpfs there"


POSIX_QUEUE: Final[Limits] = {
    errno.ENOSPC: _too_many_posix_queues,
    errno.EMFILE: _too_many_bytes_of_queues,
}
SYSV_QUEUE: Final[Limits] = {errno.ENOSPC: _too_many_sysv_queues}
SYSV_SEMAPHORE: Final[Limits] = {
    errno.ENOSPC: _too_many_sysv_semaphores,
    errno.EINVAL: _too_many_in_a_set,
}
POSIX_SEMAPHORE: Final[Limits] = {errno.ENOSPC: _no_room_in_shm, errno.ENOENT: _no_shm}
