"""What the kernel says of an object, or its library where the kernel knows nothing of it."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    import threading
    from collections.abc import Callable
    from multiprocessing.connection import Connection


@dataclass(frozen=True)
class Witness:
    """Says whether an object is there, and how to put it when it is not.

    Without `is_there` nobody can tell, and what is left of it is looked at when all is put away.
    """

    gone: str
    is_there: Callable[[], bool] | None = None
    #: Seconds until it is gone, where nobody can wait for that: a thread that has nothing to do.
    patience: float = 0

    def stays(self) -> bool:
        """Whether it is still there when it should be gone."""
        over = time.monotonic() + self.patience
        while self.is_there is not None and self.is_there():
            if time.monotonic() >= over:
                return True
            time.sleep(0.001)
        return False


def number(fd: int, gone: str = "closed") -> Witness:
    """The descriptor number still means the same open file."""
    found = os.fstat(fd)
    name = os.readlink(f"/proc/self/fd/{fd}")

    def is_there() -> bool:
        try:
            now = os.fstat(fd)
        except OSError:
            return False
        same = (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino)
        # A file's name changes when it is unlinked, and that of an anonymous inode tells its kind.
        return same and (Path(name).is_file() or os.readlink(f"/proc/self/fd/{fd}") == name)

    return Witness(gone, is_there)


def path(place: str | os.PathLike[str], gone: str = "its path unlinked") -> Witness:
    """The path is there."""
    return Witness(gone, Path(place).exists)


def content(place: Path, expected: bytes, gone: str) -> Witness:
    """The file has not got this content yet."""
    return Witness(gone, lambda: expected not in place.read_bytes())


def answers(address: Any, family: int = socket.AF_INET) -> Witness:
    """Somebody listens there."""

    def is_there() -> bool:
        with socket.socket(family) as caller:
            return caller.connect_ex(address) == 0

    return Witness("nobody listens any more", is_there)


def end_of_file(peer: socket.socket) -> Witness:
    """The other end has not been told of an end."""

    def is_there() -> bool:
        peer.setblocking(False)
        try:
            return peer.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    return Witness("its peer sees the end", is_there)


def future(pending: asyncio.Future[Any] | concurrent.futures.Future[Any]) -> Witness:
    """It is not done."""
    return Witness("cancelled", lambda: not pending.cancelled())


def process(pid: int, gone: str = "killed") -> Witness:
    """An OS process of that pid runs; a zombie does not."""
    found = psutil.Process(pid)

    def is_there() -> bool:
        try:
            return found.is_running() and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return Witness(gone, is_there)


def runs(thread: threading.Thread, gone: str) -> Witness:
    """The thread has not ended."""
    return Witness(gone, thread.is_alive, patience=5)


def works(attempt: Callable[[], object], gone: str) -> Witness:
    """It can be used."""

    def is_there() -> bool:
        try:
            attempt()
        except Exception:
            return False
        return True

    return Witness(gone, is_there)


def holds(condition: Callable[[], object], gone: str) -> Witness:
    """Whatever this says."""
    return Witness(gone, lambda: bool(condition()))


def end_of_pipe(other: Connection) -> Witness:
    """The other end of a `multiprocessing` connection has not been told of an end."""

    def is_there() -> bool:
        if not other.poll():
            return True
        try:
            other.recv_bytes()
        except (EOFError, OSError):
            return False
        return True

    return Witness("its peer sees the end", is_there)
