"""What of things made elsewhere is of this kind.

Not taken: `multiprocessing.Queue` and `SimpleQueue`, whose pipe and locks are shared with
processes that cannot be told to stop; `queue.Queue` and `asyncio.Queue`, which cannot wake those
who wait before Python 3.13. Nobody could honestly say that closing them leaves no one waiting:
use the manager's queues. Files, raw descriptors, `os.pipe` among them, and sockets belong to the
kinds `files` and `sockets`.
"""

from __future__ import annotations

import sys

import posix_ipc
import sysv_ipc

from probate.system import loop_of, transport_of
from probate_ipc import native as kernel
from probate_ipc.connection import ConnectionHandle, ListenerHandle, listening_socket
from probate_ipc.handle import Handle
from probate_ipc.messagequeue import PosixQueue, SysvQueue
from probate_ipc.semaphore import PosixSemaphore, SysvSemaphore
from probate_ipc.transports import TransportHandle, is_pipe_transport


def native_of(resource: object) -> object:
    """Return the object by which `resource` is known: the native one, if it wraps one."""
    return resource.identity if isinstance(resource, Handle) else transport_of(resource)


def handle_on(resource: object, *, is_owner: bool) -> Handle | None:
    """Take hold of `resource`; None if it is not of this kind.

    `is_owner` is for what has a name or key: whether that is to be removed in the end. Raises
    ValueError if it is closed, or removed.
    """
    try:
        handle = _handle_on(resource, is_owner=is_owner)
    except (*kernel.ABSENT, OSError) as error:
        # The latter for a number that somebody has closed elsewhere.
        raise _closed(resource) from error
    if handle is not None and handle.closed:
        raise _closed(resource)
    return handle


def _handle_on(resource: object, *, is_owner: bool) -> Handle | None:
    if isinstance(resource, Handle):
        return resource
    # What nobody has imported, nobody has made anything of.
    if (connection := sys.modules.get("multiprocessing.connection")) is not None:
        if isinstance(resource, connection.Connection):
            return ConnectionHandle(resource)
        if isinstance(resource, connection.Listener):
            if listening_socket(resource) is None:
                raise _closed(resource)
            return ListenerHandle(resource)
    if isinstance(resource, posix_ipc.MessageQueue):
        if resource.mqd == -1:
            raise _closed(resource)
        return PosixQueue(resource, is_owner=is_owner)
    if isinstance(resource, posix_ipc.Semaphore):
        return PosixSemaphore(resource, is_owner=is_owner)
    if isinstance(resource, sysv_ipc.MessageQueue):
        return SysvQueue(resource, is_owner=is_owner)
    if isinstance(resource, sysv_ipc.Semaphore):
        return SysvSemaphore(resource, is_owner=is_owner)
    if is_pipe_transport(native := transport_of(resource)):
        if loop_of(native) is None and native.is_closing():
            # A transport of asyncio's forgets its loop when it has closed.
            raise _closed(resource)
        return TransportHandle(native, resource)
    return None


def _closed(resource: object) -> ValueError:
    return ValueError(f"closed or removed, so it cannot be owned: {resource!r}")
