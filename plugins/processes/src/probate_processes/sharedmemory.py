"""Files in /dev/shm: who of a tree unlinks them, and which of them stay.

multiprocessing, loky and torch each start a helper, once for a tree, that unlinks what its users
have made by name as soon as all of them are dead: a resource tracker.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Final, final

from probate.system import read_proc, stat_of
from probate_processes.procfs import folder_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_FOLDER: Final = "/dev/shm"  # noqa: S108  where shm_open(3) makes them

#: What the trackers of multiprocessing (also its semaphore tracker) and loky are started to do,
#: and the program that is torch's.
_TRACKS: Final = rb"\0-c\0[^\0]*\b(?:resource|semaphore)_tracker import main\b"
_TORCH: Final = b"torch_shm_manager"

#: A mapping of a file there in /proc/PID/maps: device, inode, path (proc(5)).
_MAPPING: Final = rb"(?m)^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(/dev/shm/.+)$"

#: How often it is looked whether a process still sleeps uninterruptibly, and the seconds between.
_LOOKS: Final = 10
_LOOK_PAUSE: Final = 0.01

#: How many files one note names.
_NAMED: Final = 20


def is_resource_tracker(os_pid: int) -> bool:
    """Tell whether a process is a resource tracker, by its command line."""
    words = _read(f"/proc/{os_pid}", "cmdline")
    program = words.partition(b"\0")[0].rpartition(b"/")[2]
    return program == _TORCH or re.search(_TRACKS, words) is not None


@final
class SharedFiles:
    """Notes which files in /dev/shm processes have mapped, to tell which of them stay."""

    def __init__(self) -> None:
        #: By device and inode.
        self._mapped: dict[tuple[int, int], str] = {}

    def note(self, os_pids: Iterable[int]) -> None:
        """Note what these processes have mapped, before they are killed."""
        try:
            if not os.listdir(_FOLDER):  # noqa: PTH208  paths take longer
                return
        except OSError:
            return
        for os_pid in os_pids:
            self._mapped.update(_mapped_by(os_pid))

    def left(self) -> str:
        """Describe in a sentence what is still there; empty if nothing is.

        What this host has mapped itself is its own to unlink.
        """
        if not self._mapped:
            return ""
        ours = _mapped_by(os.getpid())
        paths = sorted(
            path
            for identity, path in self._mapped.items()
            if identity not in ours and _identity(path) == identity
        )
        if not paths:
            return ""
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        return f"had mapped, when it was killed, what stays: {', '.join(paths[:_NAMED])}{more}"


def _mapped_by(os_pid: int) -> dict[tuple[int, int], str]:
    return {
        (os.makedev(int(major, 16), int(minor, 16)), int(inode)): os.fsdecode(path)
        for major, minor, inode, path in re.findall(_MAPPING, _read(folder_of(os_pid), "maps"))
    }


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116  one call for each
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _read(folder: str, name: str) -> bytes:
    """Read what the kernel asks a process's memory for; nothing if that cannot be had at once."""
    try:
        # Of one that sleeps uninterruptibly, whoever reads may have to sleep as well. Most wait for
        # a disk, and soon do not any more.
        for _ in range(_LOOKS):
            if stat_of(int(folder.split("/")[2]))[0] != b"D":
                return read_proc(f"{folder}/{name}")
            time.sleep(_LOOK_PAUSE)
    except OSError:
        pass
    return b""
