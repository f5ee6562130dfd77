"""What System V queues and semaphores have in common (sysvipc(7)): ids, and their removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from probate import Outcome, RefusedResourceError
from probate_ipc import native as kernel

if TYPE_CHECKING:
    from probate_ipc.native import SysvQueueNative, SysvSemaphoreNative


#: What proc_sysvipc_msg(5) and its sibling call the column of the id.
_ID_COLUMNS: Final = {"msg": "msqid", "sem": "semid"}


@final
class SysvIdentity:
    """Which SysV object this is: enough to know it again without trusting its key.

    An id carries a sequence number, so it comes round only after some hundred million others.
    Key and creator never change. `created` is the kernel's time of creation, in seconds since
    the epoch; IPC_SET and SETVAL overwrite the kernel's copy later on. It is kept so that a
    journal can tell the object from a successor after a restart.
    """

    __slots__ = ("created", "creator", "id", "key")

    def __init__(self, native: SysvQueueNative | SysvSemaphoreNative, table: str) -> None:
        self.id = native.id
        self.key = native.key
        #: User and group id of whoever made it.
        self.creator = (native.cuid, native.cgid)
        self.created = _change_time(table, native.id)

    def is_same(self, native: SysvQueueNative | SysvSemaphoreNative) -> bool:
        """Whether the kernel still has this object. Raises what is in `native.ABSENT` if not."""
        return (native.cuid, native.cgid) == self.creator


def remove(identity: SysvIdentity, native: SysvQueueNative | SysvSemaphoreNative) -> Outcome:
    """Remove an object of ours: whoever is blocked in it, in any OS process, gets EIDRM.

    Raises RefusedResourceError if it may not be removed.
    """
    try:
        if not identity.is_same(native):
            return Outcome.ALREADY_GONE
        native.remove()
    except kernel.ABSENT:
        return Outcome.ALREADY_GONE
    except kernel.FORBIDDEN as error:
        raise RefusedResourceError(f"it may not be removed by this user: {error}") from error
    return Outcome.RELEASED


def _change_time(table: str, wanted: int) -> int | None:
    """The `ctime` of id `wanted` in /proc/sysvipc/`table`; None where that cannot be read."""
    try:
        with open(f"/proc/sysvipc/{table}") as file:
            columns = file.readline().split()
            id_column, time_column = columns.index(_ID_COLUMNS[table]), columns.index("ctime")
            for line in file:
                fields = line.split()
                if int(fields[id_column]) == wanted:
                    return int(fields[time_column])
    except OSError:
        return None
    return None
