"""Containment by a cgroup v2: what is forked inside stays inside, and is killed at one stroke.

Source: Documentation/admin-guide/cgroup-v2.rst of the kernel; `cgroup.kill` is there from
Linux 5.14 on.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import re
from pathlib import Path
from typing import Final, Self, final

from probate.system import read_proc
from probate_processes.procfs import cgroup_of, is_exhaustion, start_time_of_host

_numbers: Final = itertools.count(1)


@final
class Cgroup:
    """A cgroup of our own, below that of this host, and named after the host."""

    __slots__ = ("folder", "path")

    def __init__(self, folder: str, path: str) -> None:
        #: Where it is mounted, or will be.
        self.folder = folder
        #: As /proc/PID/cgroup tells it.
        self.path = path

    @classmethod
    def create(cls, home: str | None) -> Self | None:
        """Name one below `home`, which this host is in; None where that may not be written to.

        It is there when it has been made.
        """
        if home is None:
            return None
        try:
            folder = _folder_of(home)
        except OSError:
            return None
        if not os.access(folder, os.W_OK, effective_ids=True):
            # It may be mounted elsewhere by now.
            _folder_of.cache_clear()
            return None
        host = os.getpid()
        name = f"probate-{host}-{start_time_of_host(host)}-{next(_numbers)}"
        return cls(f"{folder}/{name}", f"{home.rstrip('/')}/{name}")

    def __repr__(self) -> str:
        return f"<Cgroup {self.path}>"

    def make(self) -> bool:
        """Make it; False if that is refused, or there is no cgroup.kill."""
        try:
            os.mkdir(self.folder)  # noqa: PTH102  paths take longer
        except OSError:
            return False
        if not os.path.exists(f"{self.folder}/cgroup.kill"):  # noqa: PTH110  as above
            self.remove()
            return False
        return True

    def add(self, os_pid: int) -> bool:
        """Move a process in; False if it is gone, or may not be moved."""
        try:
            self._write("cgroup.procs", str(os_pid))
        except OSError:
            return False
        return True

    def members(self) -> list[int]:
        """List the processes inside, also in cgroups that they have made in turn; no zombies."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.folder, onerror=_raise_exhaustion):
            try:
                found += map(int, read_proc(f"{folder}/cgroup.procs").split())
            except OSError as error:
                _raise_exhaustion(error)
        return found

    def is_populated(self) -> bool:
        """Whether anybody lives inside; True if that cannot be read."""
        try:
            return b"populated 0" not in read_proc(f"{self.folder}/cgroup.events")
        except FileNotFoundError:
            # Not made yet, or removed, which it is only when it is empty.
            return False
        except OSError:
            return True

    def has(self, os_pid: int) -> bool:
        """Whether a process, or zombie, belongs to it."""
        return self.contains(cgroup_of(os_pid))

    def contains(self, path: str | None) -> bool:
        """Whether a path, as /proc/PID/cgroup tells it, is that of it or of one below."""
        return path is not None and (path == self.path or path.startswith(f"{self.path}/"))

    def kill(self) -> None:
        """Send SIGKILL to all inside at once; what is forking meanwhile does not escape."""
        with contextlib.suppress(OSError):
            self._write("cgroup.kill", "1")

    def limit(self, controller: str, value: int) -> bool:
        """Set `memory.max` or `pids.max`; False where the controller is not ours to use."""
        control = Path(self.folder).parent / "cgroup.subtree_control"
        with contextlib.suppress(OSError):
            control.write_text(f"+{controller}")
        try:
            self._write(f"{controller}.max", str(value))
        except OSError:
            return False
        return True

    def remove(self) -> bool:
        """Remove it and those below; False if somebody is still inside."""
        # They are directories that rmdir(2) takes with all that is in them.
        with contextlib.suppress(OSError):
            os.rmdir(self.folder)  # noqa: PTH106  paths take longer
            return True
        # Deepest first.
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return not os.path.exists(self.folder)  # noqa: PTH110  as above

    def _write(self, name: str, text: str) -> None:
        # It must exist already.
        fd = os.open(f"{self.folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


@functools.lru_cache(maxsize=1)
def _folder_of(path: str) -> str:
    """Where a cgroup is mounted, which takes long to find. Raises OSError if it is not."""
    for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).split("\n"):
        head, _, tail = line.partition(" - ")
        if tail.split(" ")[0] != "cgroup2":
            continue
        root, mount_point = (_unescaped(part) for part in head.split(" ")[3:5])
        if path == root or path.startswith(f"{root.rstrip('/')}/"):
            return str(Path(mount_point) / path[len(root.rstrip("/")) :].lstrip("/"))
    raise FileNotFoundError(errno.ENOENT, f"cgroup {path} is not mounted here")


def _raise_exhaustion(error: OSError) -> None:
    """Raise the error if it tells nothing: what no descriptor was left for may well be there."""
    if is_exhaustion(error):
        raise error


def _unescaped(text: str) -> str:
    """Undo the octal escapes of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
