"""System V queues, semaphores and segments in the journal (sysvipc(7)): for kinds that make them.

Who died between making one and noting its id has left nothing to find it by but its key. So a key
is drawn here and noted before the kernel is asked, and neither IPC_PRIVATE nor a key that a library
picks within its call is used.

The kernel gives an id again after some four million others, and a key at once. Together, and with
who created it, they tell an object for as long as its IPC namespace can be told from others. When
it was changed last (ctime) tells it elsewhere, too, but not for ever: IPC_SET and, of semaphores,
SETVAL overwrite that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, final

from probate.errors import RefusedResourceError
from probate.journal.handles import boot_id, ipc_namespace, is_lasting_namespace
from probate.journal.named import Named
from probate.outcome import Outcome
from probate.system.clib import libc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from probate.models import ResourceRecord

M = TypeVar("M")

#: The three sorts, as /proc/sysvipc has them (proc(5)).
SysvSort = Literal["msg", "sem", "shm"]

#: The columns of ids there.
_IDS: Final = {"msg": "msqid", "sem": "semid", "shm": "shmid"}

#: The bits of a key that is drawn: `key_t` is a C int, and what is asked for may be negative.
_KEY_BITS: Final = 31

#: IPC_PRIVATE, a key by which nothing is found.
_PRIVATE: Final = 0

#: The command that removes (shmctl(2)), the same on all architectures.
_IPC_RMID: Final = 0

#: Bit of a segment's mode: it has been removed, and goes with the last who is attached.
_SHM_DEST: Final = 0o1000

#: Seconds for which the memory of a dead process is waited for, and for which no further such wait
#: is needed; and between two looks.
_LINGERING: Final = 0.1
_WAIT_SERVES: Final = 1.0
_PAUSE: Final = 0.005
_waited_at = float("-inf")


@final
class SysvIdentity(NamedTuple):
    """Tells a System V object from any later one, without trusting its key alone."""

    id: int
    key: int
    #: User and group id of whoever made it.
    creator: tuple[int, int]
    #: The kernel's time of creation, in seconds since the epoch; None where it cannot be read.
    created: int | None


def with_sysv_key(key: int | None, make: Callable[[int], M]) -> M:
    """Call `make` with the key that was asked for; or else with random ones until one is free.

    `make` creates with IPC_EXCL. Raises what it raises; of a random key, no FileExistsError.
    """
    if key is not None:
        return make(key)
    while True:
        drawn = int.from_bytes(os.urandom(4)) >> (32 - _KEY_BITS)
        if drawn != _PRIVATE:
            with suppress(FileExistsError):
                return make(drawn)


def sysv_named(
    which: SysvSort,
    description: str,
    key: int,
    identity: Callable[[M], SysvIdentity],
    *,
    is_random: bool = False,
) -> Named[M]:
    """Say how a System V object will be found should its owner die.

    `identity` is asked of what was made. `is_random` says that the key was drawn by
    `with_sysv_key`.
    """
    before = {"which": which, "key": key, "is_random": is_random}
    return Named(description, before, partial(_after, identity))


def _after(identity: Callable[[M], SysvIdentity], made: M) -> dict[str, Any]:
    found = identity(made)
    return {
        "id": found.id,
        "uid": found.creator[0],
        "gid": found.creator[1],
        "ctime": found.created,
        "ipc_namespace": ipc_namespace(),
    }


def sysv_identity(which: SysvSort, id_: int) -> dict[str, Any]:
    """Return what tells an object that this process has just made. Raises OSError."""
    found = sysv_status(which, id_)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, f"{which} id {id_} is gone")
    made = SysvIdentity(id_, found["key"], (found["cuid"], found["cgid"]), found["ctime"])
    return {"which": which, "key": found["key"], "is_random": False, **_after(lambda _: made, None)}


def sysv_status(which: SysvSort, id_: int) -> dict[str, int] | None:
    """Return what the kernel says of a System V object, by its columns; None if there is none.

    Raises OSError where /proc/sysvipc cannot be read (proc(5)).
    """
    return _find(which, _IDS[which], id_)


def may_be_there(identity: Mapping[str, Any]) -> bool:
    """Tell whether what an IPC namespace had can be there still: not after another boot.

    Raises RefusedResourceError if it is of another namespace than this process's.
    """
    if identity["boot"] != boot_id():
        return False
    if identity["ipc_namespace"] != ipc_namespace():
        raise RefusedResourceError(
            "it is of another IPC namespace, which is not seen from here (ipc_namespaces(7))"
        )
    return True


def reclaim_sysv(record: ResourceRecord, dry_run: bool) -> Outcome:
    """Remove the System V object that a record made by `sysv_named` tells of.

    Returns ALREADY_GONE if it is gone, or its id or key is another's. Raises
    RefusedResourceError, with the reason, for what is not to be removed; OSError.
    """
    identity = record.identity
    if not may_be_there(identity):
        return Outcome.ALREADY_GONE
    which: SysvSort = identity["which"]
    found = _find_confirmed(which, identity) if "id" in identity else _find_made(which, identity)
    if found is None:
        return Outcome.ALREADY_GONE
    if found["uid"] != identity["uid"]:
        raise RefusedResourceError(f"it belongs to user {found['uid']}")
    if attaches := _attaches(which, found):
        raise RefusedResourceError(f"still attached by {attaches}")
    return Outcome.RELEASED if dry_run else _remove(which, found[_IDS[which]])


def _attaches(which: SysvSort, found: Mapping[str, int]) -> int:
    """Return how many have a segment attached; not who is dead, but whose memory lingers.

    Whoever reads its /proc/PID/maps just then keeps that for a moment. Of one host it is one
    memory, so that one wait serves for all its segments.
    """
    global _waited_at  # noqa: PLW0603  the latest, of this process
    attaches = found.get("nattch", 0)
    now = time.monotonic()
    if attaches and now - _waited_at > _WAIT_SERVES:
        while attaches and time.monotonic() - now < _LINGERING:
            time.sleep(_PAUSE)
            attaches = (sysv_status(which, found[_IDS[which]]) or {}).get("nattch", 0)
        _waited_at = time.monotonic()
    return attaches


def _find_confirmed(which: SysvSort, identity: Mapping[str, Any]) -> dict[str, int] | None:
    """Find what was made; None if it is gone. Raises RefusedResourceError where nobody can know."""
    found = sysv_status(which, identity["id"])
    if found is None or (which == "shm" and found["perms"] & _SHM_DEST):
        return None
    if any(
        found[column] != identity[name]
        for column, name in (("key", "key"), ("cuid", "uid"), ("cgid", "gid"))
    ):
        return None
    if found["ctime"] != identity["ctime"] and not (
        identity["key"] != _PRIVATE and is_lasting_namespace(identity["ipc_namespace"])
    ):
        raise RefusedResourceError(
            "it was changed since it was made, so that nobody can tell it from a later one"
        )
    return found


def _find_made(which: SysvSort, identity: Mapping[str, Any]) -> dict[str, int] | None:
    """Find what may have been made, and was never confirmed. Raises RefusedResourceError."""
    if identity["key"] == _PRIVATE:
        raise RefusedResourceError("its owner died as it made it, and IPC_PRIVATE finds nothing")
    found = _find(which, "key", identity["key"])
    if found is None or found["cuid"] != identity["uid"]:
        return None
    if not identity["is_random"]:
        raise RefusedResourceError("its owner died as it made it, and the key was not its own")
    return found


def _find(which: SysvSort, column: str, wanted: int) -> dict[str, int] | None:
    # Without buffers and decoding, which take longer than the kernel: each creation looks.
    with open(f"/proc/sysvipc/{which}", "rb", buffering=0) as file:
        head, *lines = file.read().splitlines()
    columns = head.decode().split()
    place = columns.index(column)
    for line in lines:
        fields = line.split()
        if int(fields[place]) == wanted:
            found = dict(zip(columns, map(int, fields), strict=True))
            found["perms"] = int(fields[columns.index("perms")], 8)
            return found
    return None


def _remove(which: SysvSort, id_: int) -> Outcome:
    # The others take no number of a semaphore within the set (semctl(2)).
    arguments = (id_, 0, _IPC_RMID) if which == "sem" else (id_, _IPC_RMID, None)
    if getattr(libc(), f"{which}ctl")(*arguments) == 0:
        return Outcome.RELEASED
    number = ctypes.get_errno()
    if number in {errno.EINVAL, errno.EIDRM}:
        return Outcome.ALREADY_GONE
    raise OSError(number, os.strerror(number), f"removal of {which} id {id_}")
