"""Which file system a thing is on, and whether that is there still, with all that is on it.

What is mounted over a folder, or is not mounted now, hides what is there, and removes none of it:
unless it was in memory alone, such as what a login has below /run/user.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.errors import RefusedResourceError
from probate.journal.handles import boot_id, mount_namespace
from probate.system.clib import libc
from probate.system.tree import mount_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: TMPFS_MAGIC and RAMFS_MAGIC (include/uapi/linux/magic.h), first in what statfs(2) fills in.
_IN_MEMORY: Final = {0x01021994, 0x858458F6}
_STATFS_SIZE: Final = 256
#: BTRFS_SUPER_MAGIC, as above.
_HAS_SUBVOLUMES: Final = 0x9123683E

#: A space, tab, newline or backslash in a path of /proc/self/mountinfo (proc(5)).
_ESCAPED: Final = rb"\\([0-7]{3})"


@final
class Mount(NamedTuple):
    """One mount, by its id, the number of its device as `major:minor`, and where it is.

    `root` is what of the file system is there: a part of it, if it was bound (mount(8), --bind).
    """

    mount_id: int
    device: str
    root: str
    path: str


def mounts() -> Iterator[Mount]:
    """Yield all mounts of this namespace, also of what is covered by another."""
    # Ids, device, root, and where it is mounted: proc(5), /proc/PID/mountinfo.
    for line in Path("/proc/self/mountinfo").read_bytes().removesuffix(b"\n").split(b"\n"):
        mount_id, _, device, *paths = line.split(b" ")[:5]
        root, path = [
            os.fsdecode(re.sub(_ESCAPED, lambda found: bytes([int(found[1], 8)]), each))
            for each in paths
        ]
        yield Mount(int(mount_id), device.decode(), root, path)


def device_inside(fd: int) -> int:
    """Return the device of the file system that an open file is on, as the kernel's lists have it.

    That is in /proc/PID/maps and in what sock_diag(7) says of unix sockets. Of a subvolume, stat(2)
    tells another (btrfs(5)). Where that is not known, it is what stat(2) tells.
    """
    device = os.fstat(fd).st_dev
    if file_system_type(fd) != _HAS_SUBVOLUMES:
        return device
    mount_id = mount_of(fd)
    for mount in mounts():
        if mount.mount_id == mount_id:
            return os.makedev(*map(int, mount.device.split(":")))
    return device


def file_system_type(fd: int) -> int:
    """Return the number of the type of the file system that an open file is on (statfs(2))."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    libc().fstatfs(fd, buffer)
    return int(struct.unpack_from("L", buffer)[0])


def file_system_of(fd: int) -> dict[str, Any]:
    """Return what tells the file system of an open folder, until the next boot at least."""
    is_in_memory = file_system_type(fd) in _IN_MEMORY
    return {
        "file_system": os.fstatvfs(fd).f_fsid,
        "in_memory": _named(os.fstat(fd).st_dev) if is_in_memory else None,
    }


def has_file_system_gone(fd: int, identity: Mapping[str, Any]) -> bool:
    """Tell whether what a thing was made on is gone, by what is open in its place.

    Raises RefusedResourceError if this is another, and that one may come back.
    """
    wanted = identity.get("file_system")
    # By another boot, it may have another name.
    if wanted is None or identity.get("boot") not in {None, boot_id()}:
        return False
    if os.fstatvfs(fd).f_fsid == wanted:
        return False
    device: str | None = identity["in_memory"]
    own = mount_namespace()
    # What others have mounted is not seen from here.
    is_seen = identity.get("mount_namespace", own) == own
    if device is not None and is_seen and not _may_be_mounted(device, wanted):
        return True
    raise RefusedResourceError("the file system that it is on is not mounted there now")


def _may_be_mounted(device: str, file_system: int) -> bool:
    for mount in mounts():
        if mount.device == device:
            with suppress(OSError):
                # The kernel gives the number of a device again, too.
                if _named(os.stat(mount.path).st_dev) == device:  # noqa: PTH116  a string
                    if os.statvfs(mount.path).f_fsid == file_system:
                        return True
                    continue
            return True
    return False


def _named(device: int) -> str:
    """Write a device as /proc/PID/mountinfo does."""
    return f"{os.major(device)}:{os.minor(device)}"
