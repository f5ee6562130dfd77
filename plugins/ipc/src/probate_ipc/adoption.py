"""What of things made elsewhere is of this kind.

Not taken: `multiprocessing.Queue` and `SimpleQueue`, whose pipe and locks are shared with
processes that cannot be told to stop; `queue.Queue` and `asyncio.Queue`, which cannot wake those
who wait before Python 3.13. Nobody could honestly say that closing them leaves no one waiting:
use the manager's queues. Files, raw descriptors, `os.pipe` among them, and sockets belong to the
kinds `files` and `sockets`.
"""

from __future__ import annotations

from multiprocessing.connection import Connection, Listener
from typing import TYPE_CHECKING, cast

from probate_ipc import native as kernel
from probate_ipc.connection import ConnectionHandle, ListenerHandle, listening_socket
from probate_ipc.inprocess import InProcessQueue
from probate_ipc.pipe import PipeReader, PipeWriter
from probate_ipc.posixqueue import PosixQueue
from probate_ipc.semaphore import PosixSemaphore, SysvSemaphore
from probate_ipc.sysvqueue import SysvQueue
from probate_ipc.topic import Subscription, Topic

if TYPE_CHECKING:
    from probate_ipc.handle import Handle

_OUR_OWN = (
    PipeReader,
    PipeWriter,
    InProcessQueue,
    Topic,
    Subscription,
    PosixQueue,
    SysvQueue,
    PosixSemaphore,
    SysvSemaphore,
)


def native_of(resource: object) -> object:
    """The object by which `resource` is known: the native one, if it wraps one."""
    return resource.identity if isinstance(resource, _OUR_OWN) else resource


def handle_on(resource: object, *, is_owner: bool) -> Handle | None:
    """A handle on `resource`, None if it is not of this kind.

    `is_owner` is for what has a name or key: whether that is to be removed in the end. Raises
    ValueError if it is closed, or removed.
    """
    try:
        handle = _handle_on(resource, is_owner=is_owner)
    except kernel.ABSENT as error:
        raise _closed(resource) from error
    if handle is not None and handle.closed:
        raise _closed(resource)
    return handle


def _handle_on(resource: object, *, is_owner: bool) -> Handle | None:
    if isinstance(resource, _OUR_OWN):
        return resource
    if isinstance(resource, Connection):
        return ConnectionHandle(resource)
    if isinstance(resource, Listener):
        if listening_socket(resource) is None:
            raise _closed(resource)
        return ListenerHandle(resource)
    if kernel.is_posix_queue(resource):
        posix_queue = cast("kernel.PosixQueueNative", resource)
        if posix_queue.mqd == -1:
            raise _closed(resource)
        return PosixQueue(posix_queue, is_owner=is_owner)
    if kernel.is_posix_semaphore(resource):
        return PosixSemaphore(cast("kernel.PosixSemaphoreNative", resource), is_owner=is_owner)
    if kernel.is_sysv_queue(resource):
        return SysvQueue(cast("kernel.SysvQueueNative", resource), is_owner=is_owner)
    if kernel.is_sysv_semaphore(resource):
        return SysvSemaphore(cast("kernel.SysvSemaphoreNative", resource), is_owner=is_owner)
    return None


def _closed(resource: object) -> ValueError:
    return ValueError(f"closed or removed, so it cannot be owned: {resource!r}")
