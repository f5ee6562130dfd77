"""The shared memory that an OS process has attached, seen from outside."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from probate.system import file_maps, links_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from probate import ResourceRecord

#: Where the C library makes shared memory (shm_overview(7)).
_FOLDER: Final = "/dev/shm/"  # noqa: S108  compared


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of POSIX and SysV shared memory, by name or id; opened and not mapped by number, too."""
    # Not before: the module of records brings pydantic along, which takes long.
    from probate import ResourceRecord

    mapped: set[int] = set()
    for each in file_maps(process.pid):
        if each.sort == "SysV segment":
            text, identity = f"SysV shared memory {each.inode}", {"id": each.inode}
        elif each.sort == "shared memory":
            text, identity = f"shared memory {each.path}", {"inode": each.inode}
            mapped.add(each.inode)
        else:
            continue
        yield ResourceRecord.held("memory", text, process.pid, each.nbytes, **identity)
    for number, path in links_of(process.pid):
        if path.startswith(_FOLDER):
            with suppress(FileNotFoundError):
                status = Path(f"/proc/{process.pid}/fd/{number}").stat()
                if stat.S_ISREG(status.st_mode) and status.st_ino not in mapped:
                    yield ResourceRecord.held(
                        "memory",
                        f"shared memory {path}",
                        process.pid,
                        status.st_size,
                        number=int(number),
                        inode=status.st_ino,
                    )
