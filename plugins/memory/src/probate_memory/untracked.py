"""SharedMemory that the interpreter's resource tracker knows nothing of.

That tracker notes names, not who made them: it unlinks what a process merely attached, once that
process has ended (cpython#82300), and complains of names that somebody else unlinked
(cpython#140485). Python 3.13 has `track=False`, 3.11 and 3.12 have not. So the opening is written
anew, on the attributes that the other methods go by; in which an exception that falls in leaves
nothing, either.
"""

from __future__ import annotations

import errno
import mmap
import os
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Final, final

from probate.system import close_if_same, opened
from probate_memory.arguments import FOLDER, path_of

if TYPE_CHECKING:
    from probate.system import FileIdentity, OwnedDescriptor

#: What to do where a segment cannot be made.
_MENDS: Final = {
    errno.ENOSPC: "ask for less, or enlarge it",
    errno.ENOMEM: "ask for less, or free memory",
    errno.EFBIG: "ask for less, or raise `ulimit -f`",
    errno.ENOENT: "mount a tmpfs there",
    errno.EROFS: "mount it writable",
}


@final
class UntrackedSharedMemory(SharedMemory):
    """A `multiprocessing.shared_memory.SharedMemory` that no tracker unlinks or warns of.

    `size` is in bytes, and asked for with `create` only: the pages are there when it is made, so
    that no access can die of a full /dev/shm (SIGBUS, mmap(2)). Pickled, it attaches on the other
    side, untracked as well. Raises FileExistsError, FileNotFoundError and other OSErrors, ENOSPC
    included, and ValueError for a segment without a byte; nothing is left behind then.
    """

    # What SharedMemory keeps its state in, in all versions so far; its stubs do not tell.
    _name: str
    _fd: int
    _flags: int
    _mmap: mmap.mmap | None
    _buf: memoryview | None
    _size: int

    #: As Python 3.13 has it.
    _track = False

    #: What its descriptor refers to, so that another's with the number is told from it.
    _identity: FileIdentity | None = None

    #: Whether the name may be unlinked: not while an opening can still fail that creates nothing.
    _may_unlink = True

    def __init__(self, name: str, create: bool = False, size: int = 0) -> None:
        self._may_unlink = create
        try:
            self._open(name, create=create, size=size)
        except BaseException as error:
            self.close()
            if create and isinstance(error, OSError) and (mend := _MENDS.get(error.errno or 0)):
                what = f"{os.strerror(error.errno or 0)} for {size} bytes: {mend}"
                raise OSError(error.errno, what, FOLDER) from error
            raise
        self._may_unlink = True

    def __del__(self) -> None:
        # The map goes with the last that lies on it, and not from under that, as by close().
        fd, self._fd = self._fd, -1
        if fd >= 0 and self._identity is not None:
            close_if_same(fd, self._identity)

    def unlink(self) -> None:
        """Remove the name; those who have the segment mapped keep it. Raises FileNotFoundError.

        Says nothing to the tracker, which prints a KeyError at the second time that it is told.
        """
        if self._may_unlink:
            os.unlink(path_of(self.name))  # noqa: PTH108  a path as the kernel has it

    def _open(self, name: str, *, create: bool, size: int) -> None:
        # As shm_open(3) does it.
        self._flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        self._name = f"/{name}"
        flags = self._flags | os.O_CLOEXEC | os.O_NOFOLLOW
        # From here on `close` closes the number, and `unlink` removes the name.
        opened(partial(os.open, path_of(name), flags, 0o600), self._keep, self.unlink)
        try:
            if create:
                # It grows by that.
                os.posix_fallocate(self._fd, 0, size)
            self._size = size if create else os.fstat(self._fd).st_size
            self._mmap = mmap.mmap(self._fd, self._size)
            self._buf = memoryview(self._mmap)
        except BaseException:
            self.unlink()
            raise

    def _keep(self, owned: OwnedDescriptor) -> None:
        # The number last: while it is not kept, whoever has opened it closes it.
        self._identity = owned.identity
        self._fd = owned.number


def undo(made: UntrackedSharedMemory) -> None:
    """Unmap and remove what was created just now."""
    made.close()
    made.unlink()
