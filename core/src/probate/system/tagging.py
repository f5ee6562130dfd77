"""Tags: numbers that an OS process hands on to all that it starts, whatever programs these run.

A tag is the soft limit of RLIMIT_LOCKS, which has had no effect since Linux 2.4 (getrlimit(2)), and
which fork and exec pass on, until a login resets it.
"""

from __future__ import annotations

import contextlib
import errno
import re
import resource
from typing import Final

from probate.system.osprocess import read_proc

#: Not among the constants of the module `resource` (asm-generic/resource.h).
_RLIMIT_LOCKS: Final = 10
#: The highest limit that is not "unlimited", with room for arithmetic.
_TAG_MAX: Final = (1 << 62) - 1
#: The lowest bits number the trees of one host; its pid, of 22 bits at most, stands above.
_NUMBER_BITS: Final = 32
_TAG: Final = re.compile(rb"^Max file locks +(\d+)", re.MULTILINE)


def tag_for(host: int, started: int, number: int = 0) -> int:
    """Return the tag of a numbered tree that an OS process starts, given when that was started."""
    return (started << 54 | host << _NUMBER_BITS) & _TAG_MAX | number


def tag_maker(tag: int) -> int:
    """Return what all tags have in common that one host gives."""
    return tag >> _NUMBER_BITS


def set_tag(os_pid: int, tag: int) -> None:
    """Tag a process, and all that it forks from now on. It may be gone, or another user's."""
    # ValueError where the hard limit was lowered, below any tag: other marks must do then.
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.prlimit(os_pid, _RLIMIT_LOCKS)
        resource.prlimit(os_pid, _RLIMIT_LOCKS, (tag, hard))


def tag_untagged(os_pid: int, tag: int) -> None:
    """As `set_tag`, unless it has another limit than this host, and so a tag already."""
    with contextlib.suppress(OSError, ValueError):
        soft, _ = resource.prlimit(os_pid, _RLIMIT_LOCKS)
        if soft == resource.prlimit(0, _RLIMIT_LOCKS)[0]:
            set_tag(os_pid, tag)


def tag_of(os_pid: int) -> int | None:
    """Read the tag of a process, or zombie; None if it has none.

    Raises OSError if there are no descriptors to look with.
    """
    try:
        soft, _ = resource.prlimit(os_pid, _RLIMIT_LOCKS)
        return None if soft == resource.RLIM_INFINITY else soft
    except ProcessLookupError:
        return None
    except OSError:
        # Another user's, whose limits may be read all the same.
        try:
            match = _TAG.search(read_proc(f"/proc/{os_pid}/limits"))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            return None
        return None if match is None else int(match[1])
