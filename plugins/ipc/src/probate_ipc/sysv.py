"""What System V queues and semaphores have in common (sysvipc(7)): ids, and their removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

import sysv_ipc

from probate import Outcome
from probate.journal import SysvIdentity, sysv_status
from probate_ipc import native as kernel
from probate_ipc.kernelobject import KernelObject

if TYPE_CHECKING:
    from probate.journal import SysvSort

N = TypeVar("N", bound="sysv_ipc.MessageQueue | sysv_ipc.Semaphore")


class SysvObject(KernelObject[N]):
    """A SysV object. Its removal wakes whoever waits in it, in any OS process, with EIDRM."""

    #: Its table in /proc/sysvipc (proc(5)).
    table: ClassVar[SysvSort]

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


def key_shown(key: int, *, is_random: bool) -> str:
    """Show a key, as errors do."""
    return "under a free key" if is_random else f"{key:#x}"


def _change_time(table: SysvSort, wanted: int) -> int | None:
    """The `ctime` of id `wanted`; None where that cannot be read."""
    try:
        found = sysv_status(table, wanted)
    except OSError:
        return None
    return None if found is None else found["ctime"]
