"""What outlives its maker by a name or a key: how it is found should its owner die, and removed.

A POSIX queue cannot be moved out of others' reach before it is unlinked (rename(2) fails with EPERM
there): who takes the name between the comparison and mq_unlink(3) must have unlinked ours first.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import posix_ipc

from probate import Outcome, RefusedResourceError
from probate.journal import (
    Named,
    may_be_there,
    queue_handle,
    reclaim_path,
    reclaim_sysv,
    sysv_named,
    users_of_file,
)
from probate_ipc import native as kernel
from probate_ipc.messagequeue import PosixQueue, SysvQueue
from probate_ipc.semaphore import PosixSemaphore, SysvSemaphore, path_of

if TYPE_CHECKING:
    from probate import ResourceRecord
    from probate.journal import Notice
    from probate_ipc.handle import Handle

S = TypeVar("S", SysvQueue, SysvSemaphore)


def named_queue(name: str, *, is_random: bool = False) -> Named[PosixQueue]:
    """Say how a POSIX queue will be found."""
    before = {"queue": name, "is_random": is_random}
    return Named(f"{PosixQueue.sort} {name!r}", before, PosixQueue.lasting_identity)


def named_semaphore(name: str, *, is_random: bool = False) -> Named[PosixSemaphore]:
    """Say how a POSIX semaphore will be found."""
    before = {"path": path_of(name), "is_random": is_random}
    return Named(f"{PosixSemaphore.sort} {name!r}", before, PosixSemaphore.lasting_identity)


def named_by_key(made: type[S], key: int, *, is_random: bool = False) -> Named[S]:
    """Say how a SysV queue or semaphore will be found."""
    description = f"{made.sort} {key:#x}"
    return sysv_named(
        made.table, description, key, lambda each: each.identification, is_random=is_random
    )


def named_of(handle: Handle) -> Named[Any] | None:
    """Say how something that was made elsewhere is found; None if it is not to be removed."""
    if isinstance(handle, PosixQueue) and handle.is_owner:
        return named_queue(handle.name)
    if isinstance(handle, PosixSemaphore) and handle.is_owner and handle.has_name:
        return named_semaphore(handle.name)
    if isinstance(handle, (SysvQueue, SysvSemaphore)) and handle.is_owner:
        return named_by_key(type(handle), handle.key)
    return None


def noticed(notice: Notice) -> ResourceRecord | None:
    """Say of queues and semaphores what they are.

    sem_open(3) makes a file of some other name, and links it to the wanted one.
    """
    if notice.call == "mq_open":
        return notice.record("ipc", f"{PosixQueue.sort} {notice.name!r}")
    if notice.call in ("open", "link") and notice.name.startswith(path_of("")):
        name = f"/{notice.name.removeprefix(path_of(''))}"
        return notice.record("ipc", f"{PosixSemaphore.sort} {name!r}")
    if notice.call == "msgget":
        return notice.record("ipc", f"{SysvQueue.sort} {notice.name}")
    if notice.call == "semget":
        return notice.record("ipc", f"{SysvSemaphore.sort} {notice.name}")
    return None


def reclaim(record: ResourceRecord, dry_run: bool) -> Outcome:
    """Remove a queue or semaphore whose owner has died.

    A POSIX one that somebody has open or mapped is refused; of SysV's, the kernel does not know
    who uses them, and wakes whoever waits in them with EIDRM.
    """
    if "which" in record.identity:
        return reclaim_sysv(record, dry_run)
    if "path" in record.identity:
        return reclaim_path(record, dry_run, in_use=users_of_file)
    return _reclaim_queue(record, dry_run)


def _reclaim_queue(record: ResourceRecord, dry_run: bool) -> Outcome:
    identity = record.identity
    if not may_be_there(identity):
        return Outcome.ALREADY_GONE
    try:
        with kernel.looking_up(record.description):
            queue = posix_ipc.MessageQueue(identity["queue"], write=False)
    except FileNotFoundError:
        return Outcome.ALREADY_GONE
    except PermissionError as error:
        raise RefusedResourceError(f"it may not be looked at: {error}") from error
    try:
        status = os.fstat(queue.mqd)
        if "handle" in identity:
            if queue_handle(queue.mqd) != identity["handle"]:
                return Outcome.ALREADY_GONE
        elif not identity["is_random"]:
            raise RefusedResourceError("its owner died as it made it, and the name was not its own")
        if status.st_uid != identity["uid"]:
            raise RefusedResourceError(f"it belongs to user {status.st_uid}")
        if users := users_of_file(queue.mqd, status):
            raise RefusedResourceError(users)
        if not dry_run:
            with kernel.looking_up(record.description):
                queue.unlink()
        return Outcome.RELEASED
    except FileNotFoundError:
        return Outcome.ALREADY_GONE
    finally:
        queue.close()
