"""Memory that is mapped, shared, or plain."""

from __future__ import annotations

import array
import ctypes
import mmap
import os
import uuid
from multiprocessing import managers, shared_memory, sharedctypes
from typing import TYPE_CHECKING, Any, Final

import posix_ipc
import sysv_ipc

from adoption.case import Trial, case
from adoption.witness import holds, number, path, process, works

if TYPE_CHECKING:
    from adoption.place import Place

MAPS: Final = "Memory maps"
SHARED: Final = "Shared memory"
PLAIN: Final = "Plain memory"


def _map(place: Place, made: mmap.mmap) -> Trial:
    place.finally_(made.close)
    return Trial(made, (holds(lambda: not made.closed, "unmapped"),))


case(MAPS, "anonymous `mmap.mmap`")(lambda place: _map(place, mmap.mmap(-1, mmap.PAGESIZE)))


@case(MAPS, "`mmap.mmap` of a file, shared")
def shared_map(place: Place) -> Trial:
    name = place.file(content=bytes(mmap.PAGESIZE))
    with open(name, "r+b") as file:
        made = mmap.mmap(file.fileno(), 0)
    made[:8] = b"buffered"
    return _map(place, made)


@case(MAPS, "`mmap.mmap` of a file, private")
def private_map(place: Place) -> Trial:
    with open(place.file(content=bytes(mmap.PAGESIZE)), "r+b") as file:
        return _map(place, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


@case(MAPS, "`mmap.mmap` that is closed")
def closed_map(_: Place) -> Trial:
    made = mmap.mmap(-1, mmap.PAGESIZE)
    made.close()
    return Trial(made)


@case(MAPS, "`numpy.memmap`", library="numpy")
def memmap(place: Place) -> Trial:
    import numpy as np

    made: Any = np.memmap(place.folder / "array", np.uint8, "w+", shape=(mmap.PAGESIZE,))
    under = made._mmap
    del place
    return Trial(
        made,
        (holds(lambda: not under.closed, "synced, and unmapped once nobody refers to it"),),
        is_let_go=True,
    )


@case(MAPS, "`numpy.ndarray`, in plain memory", library="numpy")
def array_of_numpy(_: Place) -> Trial:
    import numpy as np

    return Trial(np.zeros(10))


# -- shared ------------------------------------------------------------------------


@case(SHARED, "`SharedMemory` that created its segment")
def shared(place: Place) -> Trial:
    made = shared_memory.SharedMemory(create=True, size=4096)
    place.finally_(made.unlink)
    place.finally_(made.close)
    return Trial(made, (path(f"/dev/shm/{made.name}", "unmapped, and its name unlinked"),))


@case(SHARED, "`SharedMemory` that attached to one")
def attached(place: Place) -> Trial:
    # Of another's, of whom the interpreter's resource tracker need not hear.
    owner = posix_ipc.SharedMemory(f"/{uuid.uuid4()}", posix_ipc.O_CREX, size=4096)
    owner.close_fd()
    place.callback(owner.unlink)
    made = shared_memory.SharedMemory(owner.name)
    place.finally_(made.close)
    place.callback(os.stat, f"/dev/shm{owner.name}")
    return Trial(made, (holds(lambda: made._buf is not None, "unmapped; the segment stays"),))  # type: ignore[attr-defined]


@case(SHARED, "`SharedMemory` that is closed")
def closed_shared(place: Place) -> Trial:
    made = shared_memory.SharedMemory(create=True, size=4096)
    place.callback(made.unlink)
    made.close()
    return Trial(made)


@case(SHARED, "`ShareableList`")
def shareable_list(place: Place) -> Trial:
    made = shared_memory.ShareableList([1, 2])
    place.finally_(made.shm.unlink)
    place.finally_(made.shm.close)
    return Trial(made, (path(f"/dev/shm/{made.shm.name}", "unmapped, and its name unlinked"),))


@case(SHARED, "`SharedMemoryManager`, started")
def shared_manager(place: Place) -> Trial:
    made = managers.SharedMemoryManager()
    made.start()
    place.finally_(made.shutdown)
    segment = made.SharedMemory(4096)
    place.finally_(segment.close)
    pid = made._process.pid  # type: ignore[attr-defined]
    name = path(f"/dev/shm/{segment.name}", "the names of its segments unlinked")
    return Trial(made, (process(pid, "its process gone"), name))


@case(SHARED, "`sysv_ipc.SharedMemory` that created its segment")
def sysv_segment(place: Place) -> Trial:
    made = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=4096)
    place.finally_(made.remove)
    place.finally_(made.detach)
    return Trial(made, (works(lambda: sysv_ipc.attach(made.id).detach(), "detached, and removed"),))


@case(SHARED, "`posix_ipc.SharedMemory`")
def posix_segment(place: Place) -> Trial:
    name = f"/{uuid.uuid4()}"
    made = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, size=4096)
    place.finally_(made.unlink)
    place.finally_(made.close_fd)

    def end(segment: posix_ipc.SharedMemory) -> None:
        segment.close_fd()
        segment.unlink()

    return Trial(
        made,
        (number(made.fd), path(f"/dev/shm{name}")),
        release=end,
        say="end, which calls `close_fd` and `unlink`",
    )


@case(SHARED, "`multiprocessing.Value`")
def value(_: Place) -> Trial:
    return Trial(sharedctypes.Value("i"))


@case(SHARED, "`multiprocessing.Array`")
def shared_array(_: Place) -> Trial:
    return Trial(sharedctypes.Array("i", 10))


@case(SHARED, "`multiprocessing.RawArray`")
def raw_array(_: Place) -> Trial:
    return Trial(sharedctypes.RawArray("i", 10))


# -- plain -------------------------------------------------------------------------

case(PLAIN, "`memoryview`")(lambda _: _view(memoryview(bytearray(10))))


def _view(made: memoryview) -> Trial:
    return Trial(
        made, (works(lambda: made[0], "released"),), release=made.release, say="view.release"
    )


case(PLAIN, "`bytes`")(lambda _: Trial(b"content"))
case(PLAIN, "`bytearray`")(lambda _: Trial(bytearray(10)))
case(PLAIN, "`array.array`")(lambda _: Trial(array.array("b", [1])))
case(PLAIN, "`ctypes` array")(lambda _: Trial((ctypes.c_char * 10)()))
case(PLAIN, "`ctypes.CDLL`")(lambda _: Trial(ctypes.CDLL(None)))
case(PLAIN, "`ctypes` pointer")(lambda _: Trial(ctypes.pointer(ctypes.c_int(1))))
