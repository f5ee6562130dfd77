"""Who still uses what a dead owner has left: for `reclaim_path`, before anything is removed.

What others than this user hold is seen by root alone. One look at all processes serves for a
moment, since a settlement asks about many things.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections import defaultdict
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from probate.errors import RefusedResourceError
from probate.journal.bound import bound_sockets, device_of_sockets
from probate.journal.handles import boot_id, network_namespace
from probate.journal.mounts import device_inside, mounts
from probate.system.arrivals import Arrivals
from probate.system.numbers import links_of
from probate.system.osprocess import read_proc
from probate.system.tree import mount_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from probate.journal.bound import BoundSocket
    from probate.journal.mounts import Mount

#: Seconds for which one look serves; or so many times as long as it has taken, up to a limit: else
#: little is done but to look, where there are many processes.
_LOOK_LASTS: Final = 0.2
_LOOK_SHARE: Final = 5.0
_LOOK_LASTS_AT_MOST: Final = 2.0

#: Addresses, permissions and offset; device, inode and path, if it is a file: proc(5),
#: /proc/PID/maps.
_MAPPED: Final = rb"(?m)^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([1-9][0-9]*) *(.*)$"

_UNSEEN: Final = "still bound, by a process that is not seen from here"
_UNTOLD: Final = "processes come and go too fast to tell whether one of them uses it"


def users_of_file(pin: int, status: os.stat_result) -> str:
    """Say which OS processes have a file open or mapped, for `in_use`; empty if none is seen."""
    look = _looked()
    users = look.users.get((status.st_dev, status.st_ino), set())
    if (device := look.device_inside(pin, status)) != status.st_dev:
        # There, the file of any subvolume may have that inode, so it is told by its name, too.
        name = os.path.basename(_path_of(pin))  # noqa: PTH119  a string
        users = users | look.mapped_as(name, device, status.st_ino)
    # Seldom is there any disk, and the path asked for.
    as_disk = look.loops and _as_disk(look, _path_of(pin).__eq__)
    return _still("in use", users) or as_disk or _as_mount(look, pin) or look.doubt


def users_of_folder(pin: int, _status: os.stat_result) -> str:
    """Say which OS processes are in a folder, or use what is below it; or what is mounted there.

    For `in_use`; empty if nothing is seen. They are found by path: not those for which the path
    is another, since they are in a mount namespace of their own.
    """
    path = _path_of(pin)
    below = f"{path}/"
    look = _looked()
    if mounted := [each.path for each in look.mounts if each.path.startswith(below)]:
        return f"something is mounted in it: unmount {', '.join(mounted)}"
    users = {
        os_pid
        for used, users in look.paths.items()
        if used == path or used.startswith(below)
        for os_pid in users
    }
    # Where the kernel does not tell, what else is seen must do.
    with suppress(OSError):
        sockets = [each for each in look.bound if each.path.startswith(os.fsencode(below))]
        if sockets and not (users := users | _holders(sockets)):
            return _UNSEEN
    as_disk = _as_disk(look, lambda used: used.startswith(below))
    return _still("in use", users) or as_disk or _as_mount(look, pin) or look.doubt


def users_of_socket(pin: int, status: os.stat_result, identity: Mapping[str, Any]) -> str:
    """Say who still has a socket bound to a pinned path, for `in_use`; empty if nobody has.

    `identity` is that of its record. Raises RefusedResourceError for what is no socket, or if that
    cannot be seen from here; OSError.
    """
    if not stat.S_ISSOCK(status.st_mode):
        raise RefusedResourceError("what is there is no socket")
    # After a reboot nobody is bound, whatever the namespace was.
    if identity["boot"] == boot_id() and identity["network_namespace"] != network_namespace():
        raise RefusedResourceError("sockets of its network namespace are not seen from here")
    path = os.fsencode(_path_of(pin))
    # As the kernel has it inside, and cut off.
    device = _looked().device_inside(pin, status)
    file = (status.st_ino & 0xFFFFFFFF, os.major(device) << 20 | os.minor(device))
    # By name as well: some file systems give other numbers to stat(2) than they have inside.
    bound = [each for each in _looked().bound if file == each.file or path == each.path]
    if not bound:
        return ""
    return _still("bound", _holders(bound)) or _UNSEEN


def _path_of(pin: int) -> str:
    """Return the path that what is pinned has now."""
    return os.readlink(f"/proc/self/fd/{pin}")


def _holders(sockets: Iterable[BoundSocket]) -> set[int]:
    """Return the OS processes that have any of these sockets."""
    device = device_of_sockets()
    users = _looked().users
    return {os_pid for each in sockets for os_pid in users.get((device, each.inode), ())}


def _still(what: str, users: Iterable[int]) -> str:
    """Say that something is still so, by whom; nothing if by nobody."""
    names = ", ".join(map(str, sorted(users)))
    return f"still {what} by {names}" if names else ""


def _as_disk(look: _Look, is_asked_for: Callable[[str], bool]) -> str:
    """Say as which disks files are used that are asked for by their paths; nothing if as none."""
    names = ", ".join(name for path, name in look.loops.items() if is_asked_for(path))
    return f"still in use as {names}" if names else ""


def _as_mount(look: _Look, pin: int) -> str:
    """Say where what is pinned, or what is in it, is mounted as well; nothing if nowhere."""
    if not look.parts:
        return ""
    mount_id = mount_of(pin)
    for own in look.mounts:
        if own.mount_id == mount_id:
            inside = own.root.rstrip("/") + _path_of(pin).removeprefix(own.path.rstrip("/"))
            names = [
                each.path
                for each in look.parts
                if each.device == own.device
                and each.mount_id != mount_id
                and f"{each.root}/".startswith(f"{inside}/")
            ]
            return f"still in use: it is mounted at {', '.join(names)}" if names else ""
    return ""


def look_again() -> None:
    """Have the next one that asks look anew."""
    global _look  # noqa: PLW0603  the latest, of this process
    _look = None


def _looked() -> _Look:
    global _look  # noqa: PLW0603  as above
    if _look is None or time.monotonic() > _look.until:
        _look = _Look()
    return _look


@final
class _Look:
    """Which OS processes hold which files at one moment."""

    def __init__(self) -> None:
        begun = time.monotonic()
        #: By device and inode.
        self.users: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        #: What is mapped, by those who have it.
        self._mapped: dict[int, set[bytes]] = {}
        #: Which devices the kernel has inside, by those that stat(2) tells.
        self._inside: dict[int, int] = {}
        #: Why nobody knows who else there is; empty if that is known.
        self.doubt = self._note_all(self._note)
        now = time.monotonic()
        #: When it is too old.
        self.until = now + max(_LOOK_LASTS, min(_LOOK_SHARE * (now - begun), _LOOK_LASTS_AT_MOST))

    @cached_property
    def paths(self) -> Mapping[str, set[int]]:
        """Which paths are used, and by whom; seldom asked for."""
        found: defaultdict[str, set[int]] = defaultdict(set)

        def note(os_pid: int) -> bool:
            paths = set(_paths_of(os_pid))
            for path in paths:
                found[path].add(os_pid)
            return bool(paths)

        self.doubt = self._note_all(note) or self.doubt
        for os_pid, mapped in self._mapped.items():
            for raw in mapped:
                found[os.fsdecode(raw)].add(os_pid)
        return found

    @cached_property
    def mounts(self) -> list[Mount]:
        """All mounts that this process sees."""
        return list(mounts())

    @cached_property
    def parts(self) -> list[Mount]:
        """Those of them that show a part of a file system only (mount(8), --bind)."""
        return [each for each in self.mounts if each.root != "/"]

    @cached_property
    def loops(self) -> Mapping[str, str]:
        """Which files the kernel has as disks, by path, and as which (loop(4)): of no process."""
        found: dict[str, str] = {}
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):
                path = os.fsdecode(file.read_bytes().removesuffix(b"\n"))
                found[path] = f"/dev/{file.parts[3]}"
        return found

    @cached_property
    def bound(self) -> list[BoundSocket]:
        """Which sockets are bound to paths. Raises OSError where the kernel does not tell."""
        return list(bound_sockets())

    def device_inside(self, pin: int, status: os.stat_result) -> int:
        """Return the device that the kernel has inside, for what is pinned."""
        found = self._inside.get(status.st_dev)
        if found is None:
            found = self._inside[status.st_dev] = device_inside(pin)
        return found

    def mapped_as(self, name: str, device: int, inode: int) -> set[int]:
        """Return who has a file of that name mapped, by the device that the kernel has inside."""
        ending = os.fsencode(f"/{name}")
        return {
            os_pid
            for os_pid in self.users.get((device, inode), ())
            if any(path.endswith(ending) for path in self._mapped.get(os_pid, ()))
        }

    def _note_all(self, note: Callable[[int], bool]) -> str:
        """Have all processes noted; say so if some came and went too fast for that.

        One that uses something, and forks and exits again and again, is seen in no single listing.
        """
        arrivals = Arrivals()
        for os_pids in arrivals:
            arrivals.saw(sum([note(os_pid) for os_pid in os_pids if os_pid != os.getpid()]))
        return "" if arrivals.are_told else _UNTOLD

    def _note(self, os_pid: int) -> bool:
        """Note what a process has open, or mapped; return False if it has ended."""
        with suppress(OSError):
            self._note_open(os_pid)
        try:
            return self._note_mapped(os_pid)
        except PermissionError:
            # What belongs to others is not seen.
            return True
        except OSError:
            return False

    def _note_open(self, os_pid: int) -> None:
        with os.scandir(f"/proc/{os_pid}/fd") as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat()
                    self.users[status.st_dev, status.st_ino].add(os_pid)

    def _note_mapped(self, os_pid: int) -> bool:
        # A library is mapped in several pieces.
        found = set(re.findall(_MAPPED, read_proc(f"/proc/{os_pid}/maps")))
        for major, minor, inode, _ in found:
            device = os.makedev(int(major, 16), int(minor, 16))
            self.users[device, int(inode)].add(os_pid)
        self._mapped[os_pid] = {path for *_, path in found}
        # One that has ended, and waits to be reaped, has nothing mapped.
        return bool(found)


_look: _Look | None = None


def _paths_of(os_pid: int) -> Iterator[str]:
    """Yield what an OS process is in, runs and has open, by the paths it has now."""
    for link in ("cwd", "root", "exe"):
        with suppress(OSError):
            yield os.readlink(f"/proc/{os_pid}/{link}")
    for _, path in links_of(os_pid):
        yield path
