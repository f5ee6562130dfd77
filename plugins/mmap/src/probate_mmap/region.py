"""What is mapped: by our own word for our own maps, by the kernel's for others'."""

from __future__ import annotations

import os
from typing import Final, NamedTuple, final

#: proc(5). Of this very process, so that an address means the same.
_MAPS: Final = "/proc/self/maps"

#: As the kernel names shared anonymous memory there.
_SHARED_ANONYMOUS: Final = "/dev/zero (deleted)"


@final
class Region(NamedTuple):
    """One mapped region. `offset` is in bytes; `device` a device number, as in `st_dev`."""

    path: str | None
    is_shared: bool
    is_writable: bool = True
    offset: int = 0
    device: int = 0
    is_anonymous: bool = False

    @property
    def is_syncable(self) -> bool:
        """Whether what is written to it is to end up in a file."""
        return self.is_shared and self.is_writable and not self.is_anonymous

    def __str__(self) -> str:
        words = ["shared" if self.is_shared else "private"]
        if not self.is_writable:
            words.append("read-only")
        if self.is_anonymous:
            words.append("anonymous map")
        else:
            words.append(f"map of {self.path or 'an unknown file'}")
        return " ".join(words)


#: What is assumed where /proc does not tell: a sync too many does no harm.
UNKNOWN: Final = Region(path=None, is_shared=True)


def region_at(address: int) -> Region:
    """Ask the kernel what is mapped at `address`; UNKNOWN if it does not tell."""
    try:
        with open(_MAPS, "rb") as maps:
            for line in maps:
                fields = os.fsdecode(line).rstrip("\n").split(maxsplit=5)
                start, end = (int(part, 16) for part in fields[0].split("-"))
                if start <= address < end:
                    return _parsed(*fields[1:], lead=address - start)
    except OSError:
        pass
    return UNKNOWN


def _parsed(
    permissions: str, offset: str, device: str, inode: str, path: str = "", *, lead: int
) -> Region:
    major, minor = (int(part, 16) for part in device.split(":"))
    is_anonymous = inode == "0" or path == _SHARED_ANONYMOUS
    return Region(
        path=None if is_anonymous else path,
        is_shared=permissions[3] == "s",
        is_writable=permissions[1] == "w",
        # Neighbours of the same file are one region to the kernel.
        offset=0 if is_anonymous else int(offset, 16) + lead,
        device=os.makedev(major, minor),
        is_anonymous=is_anonymous,
    )
