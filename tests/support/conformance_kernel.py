"""What the kernel says of the things that the conformance kit makes, and where they are made."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import posix_ipc
import sysv_ipc
from drivers import LoopThread
from sysv_kernel import SORTS as SYSV
from sysv_kernel import ids_by_key

from probate.testing import KindDescription, NameDescription
from probate_mmap.libc import address_of

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator

    from probate import OsProcess

Descriptions = dict[str, KindDescription[Any, Any]]

# -- what the kernel says ----------------------------------------------------


def inode_of(thing: Any) -> tuple[int, int]:
    """What a descriptor, or what has one, refers to."""
    status = os.fstat(thing if isinstance(thing, int) else thing.fileno())
    return status.st_dev, status.st_ino


def is_open(inode: tuple[int, int]) -> bool:
    """Whether any descriptor of this process refers to that."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  looked at a thousand times
        with contextlib.suppress(OSError):
            if inode_of(int(name)) == inode:
                return True
    return False


def inode_of_map(native: mmap.mmap) -> str:
    """What is mapped at the address of a map: a file of its own, also if it is anonymous."""
    address = address_of(native)
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(each, 16) for each in line.split()[0].split("-"))
        if start <= address < end:
            return line.split()[4]
    raise AssertionError("it is not mapped")


def is_mapped(inode: str) -> bool:
    """Whether that is mapped anywhere in this process."""
    return any(
        line.split()[4] == inode for line in Path("/proc/self/maps").read_text().splitlines()
    )


def lives(process: OsProcess) -> bool:
    """Whether the very process is there, and no zombie."""
    return not process.has_exited()


def is_in_shm(name: str) -> bool:
    """Whether there is a POSIX segment, or semaphore, of that name (shm_overview(7))."""
    return os.path.lexists(f"/dev/shm/{name.lstrip('/')}")


def has_queue(name: str) -> bool:
    """Whether there is a POSIX queue of that name."""
    try:
        posix_ipc.MessageQueue(name).close()
    except posix_ipc.ExistentialError:
        return False
    return True


# -- where they are made -----------------------------------------------------


class Place:
    """A folder and an event loop, as long as a check takes."""

    folder = Path()
    loop = LoopThread()

    @contextlib.contextmanager
    def with_folder(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            yield

    @contextlib.contextmanager
    def with_loop(self) -> Iterator[None]:
        with LoopThread() as self.loop:
            yield

    def new_path(self) -> Path:
        return self.folder / os.urandom(8).hex()


PLACE: Final = Place()


def paths(
    name: Callable[[Any], str] = str,
    *,
    remove: Callable[[Any], object] = os.unlink,
    succeed: Callable[[Any], object],
    in_use: Callable[[Any], Any] | None = None,
) -> NameDescription[Any]:
    """Things that are found by their paths."""
    return NameDescription(
        name=name, is_there=os.path.lexists, remove=remove, succeed=succeed, in_use=in_use
    )


def make_file(path: Any) -> None:
    Path(path).touch(exist_ok=False)


def use_folder(folder: Path) -> None:
    (folder / "file").write_text(".")
    (folder / "file").unlink()


def by_key(
    which: str, kind: Any, make: Callable[[Any, int], Any], **functions: Any
) -> KindDescription[Any, Any]:
    """System V objects, which are found by their keys (proc(5), /proc/sysvipc)."""
    made, remove = SYSV[which]

    def is_there(key: int) -> bool:
        return key in ids_by_key(which)

    def succeed(key: int) -> None:
        options = {"size": 4096} if which == "shm" else {}
        new = made(key, sysv_ipc.IPC_CREX, **options)
        if which == "shm":
            new.detach()

    return KindDescription(
        kind=kind,
        make=make,
        identify=lambda thing: thing.key,
        is_alive=is_there,
        names=NameDescription(
            name=lambda thing: thing.key,
            is_there=is_there,
            remove=lambda key: remove(ids_by_key(which)[key]),
            succeed=succeed,
        ),
        **functions,
    )
