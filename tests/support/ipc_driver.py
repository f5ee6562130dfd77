"""How to make, adopt, give back and break resources of kind `ipc`: for tests over all kinds."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import posix_ipc
import sysv_ipc
from drivers import Driver

from probate_ipc.connection import new_pair

if TYPE_CHECKING:
    from probate import ResourceOrchestrator


def drivers(orchestrator: ResourceOrchestrator) -> dict[str, Driver]:
    """Drivers by name; each makes one resource, and nothing is left of it when it is given back."""
    ipc = orchestrator["ipc"].manager

    def pipe_end(pid: int) -> Any:
        reader, writer = ipc.pipe(pid)
        try:
            ipc.close(pid, writer)
        except BaseException:
            writer.close()
            reader.close()
            raise
        return reader

    def adopt_connection(pid: int) -> Connection:
        first, second = new_pair(duplex=True)
        second.close()
        try:
            orchestrator.adopt(pid, first)
        except BaseException:
            first.close()
            raise
        return first

    def adopt_posix_queue(pid: int) -> Any:
        native = posix_ipc.MessageQueue(None, posix_ipc.O_CREX, max_messages=1)
        native.unlink()
        try:
            orchestrator.adopt(pid, native)
        except BaseException:
            native.close()
            raise
        return native

    def adopt_sysv_semaphore(pid: int) -> Any:
        native = sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX)
        try:
            ipc.adopt(pid, native, as_owner=True)
        except BaseException:
            native.remove()
            raise
        return native

    def native_remove(thing: Any) -> None:
        thing.native.remove()

    return {
        "pipe": Driver("ipc", pipe_end, ipc.close, lambda reader: reader.close()),
        "adopted connection": Driver("ipc", adopt_connection, ipc.close, Connection.close),
        "queue": Driver("ipc", lambda pid: ipc.queue(pid, 4), ipc.close, lambda q: q.close()),
        "posix queue": Driver(
            "ipc",
            lambda pid: ipc.create_posix_queue(pid, max_messages=2, max_message_size=64),
            ipc.close,
            None,
        ),
        "adopted posix queue": Driver(
            "ipc", adopt_posix_queue, ipc.close, lambda native: native.close()
        ),
        "sysv queue": Driver("ipc", ipc.create_sysv_queue, ipc.close, native_remove),
        "semaphore": Driver("ipc", ipc.create_sysv_semaphore, ipc.close, native_remove),
        "adopted semaphore": Driver(
            "ipc", adopt_sysv_semaphore, ipc.close, lambda native: native.remove()
        ),
        "posix semaphore": Driver("ipc", ipc.create_posix_semaphore, ipc.close, None),
    }
