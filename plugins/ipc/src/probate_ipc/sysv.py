"""What System V queues and semaphores have in common (sysvipc(7)): ids, and their removal."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, TypeVar, final

import sysv_ipc

from probate import Outcome
from probate_ipc import native as kernel
from probate_ipc.kernelobject import KernelObject

N = TypeVar("N", bound="sysv_ipc.MessageQueue | sysv_ipc.Semaphore")


@final
class SysvIdentity(NamedTuple):
    """Which SysV object this is: enough to know it again without trusting its key.

    An id carries a sequence number, so it comes round only after some million others (sysvipc(7)).
    Key and creator never change. The time of creation is kept so that a journal can tell the
    object from a successor after a restart: IPC_SET and SETVAL overwrite the kernel's copy.
    """

    id: int
    key: int
    #: User and group id of whoever made it.
    creator: tuple[int, int]
    #: The kernel's time of creation, in seconds since the epoch; None where it cannot be read.
    created: int | None


class SysvObject(KernelObject[N]):
    """A SysV object. Its removal wakes whoever waits in it, in any OS process, with EIDRM."""

    #: Its table in /proc/sysvipc (proc(5)), and the column of the id there.
    table: ClassVar[tuple[str, str]]

    def __init__(self, native: N, *, is_owner: bool) -> None:
        super().__init__(native, is_owner=is_owner)
        #: The kernel's id of it.
        self.id: int = native.id
        #: Its key, by which others open it.
        self.key: int = native.key
        #: Its id, and when it was made.
        self.identification = SysvIdentity(
            self.id, self.key, (native.cuid, native.cgid), _change_time(self.table, self.id)
        )
        self._is_detached = False
        self._open = type(native)

    @property
    def _name_or_key(self) -> str:
        return f"{self.key:#x}, id {self.id}"

    @property
    def _is_gone(self) -> bool:
        return self._is_detached or not self._is_same()

    def _is_there(self) -> bool:
        try:
            return (self.native.cuid, self.native.cgid) == self.identification.creator
        except kernel.ABSENT:
            return False

    def _is_same(self) -> bool:
        """Whether the id is still this very object's, and not that of one of the same user since.

        The kernel is asked what is under our key, which no successor shares. IPC_PRIVATE is
        no key: of such objects the creator has to do.
        """
        if not self._is_there():
            return False
        if self.key == sysv_ipc.IPC_PRIVATE:
            return True
        try:
            return self._open(self.key).id == self.id
        except (*kernel.ABSENT, *kernel.FORBIDDEN):
            # What cannot be told, as when another user has taken the key, is left alone.
            return False

    def _remove(self) -> Outcome:
        if not self._is_same():
            return Outcome.ALREADY_GONE
        with kernel.looking_up(self.describe()):
            self.native.remove()
        return Outcome.RELEASED

    def _detach(self) -> None:
        self._is_detached = True


def key_shown(key: int | None) -> str:
    """Show a key, as errors do."""
    return "under a free key" if key is None else f"{key:#x}"


def _change_time(table: tuple[str, str], wanted: int) -> int | None:
    """The `ctime` of id `wanted`; None where that cannot be read."""
    name, column = table
    try:
        with open(f"/proc/sysvipc/{name}") as file:
            columns = file.readline().split()
            id_column, time_column = columns.index(column), columns.index("ctime")
            for line in file:
                fields = line.split()
                if int(fields[id_column]) == wanted:
                    return int(fields[time_column])
    except OSError:
        return None
    return None
