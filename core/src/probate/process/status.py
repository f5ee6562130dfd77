"""Reports of running hosts on their processes, for `probate ps`: to the same user, and to root.

A host that has spawned something listens at an abstract unix socket (unix(7)). The kernel frees
the name when the host dies, however it dies, so nothing is ever left behind.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from pydantic import BaseModel, ConfigDict, ValidationError

from probate.errors import ProbateError
from probate.models import OsUsage, ProcessInfo
from probate.system.deathwatch import death_watch
from probate.system.forking import forget_in_forked_child
from probate.system.osprocess import start_time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate.orchestrator import ResourceOrchestrator

_PREFIX: Final = "probate-host/"
_numbers: Final = itertools.count(1)

#: Seconds that either side waits for the other.
_PATIENCE: Final = 5.0

#: `struct ucred`: pid, uid, gid of the peer (SO_PEERCRED, unix(7)).
_UCRED: Final = struct.Struct("iII")

#: The flag of a socket that accepts connections, in /proc/net/unix (__SO_ACCEPTCON).
_ACCEPTS: Final = "00010000"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


@final
class Holding(_Frozen):
    """Counts what a process owns of one kind."""

    count: int
    nbytes: int


@final
class ProcessReport(_Frozen):
    """Describes a process of a host, as it was at one moment."""

    process: ProcessInfo
    #: By kind, in cleanup order.
    resources: dict[str, Holding]
    #: What its OS processes use, with all that descends from them; None if it has none.
    os: OsUsage | None = None


@final
class HostReport(_Frozen):
    """Describes a process manager and its processes, oldest first."""

    os_pid: int
    #: The host program's command line.
    command: tuple[str, ...]
    processes: tuple[ProcessReport, ...]


def report(orchestrator: ResourceOrchestrator, processes: list[ProcessInfo]) -> HostReport:
    """Describe this host: its processes, what they own, and what their OS processes use."""
    return HostReport(
        os_pid=os.getpid(),
        command=tuple(sys.orig_argv),
        processes=tuple(_report(orchestrator, process) for process in processes),
    )


def _report(orchestrator: ResourceOrchestrator, process: ProcessInfo) -> ProcessReport:
    try:
        usage = orchestrator.usage(process.pid)
    except ProbateError:
        # It has terminated since it was listed.
        usage = {}
    return ProcessReport(
        process=process,
        resources={
            kind: Holding(count=each.count, nbytes=each.nbytes) for kind, each in usage.items()
        },
        os=next((each.os for each in usage.values() if each.os is not None), None),
    )


@final
class StatusSocket:
    """Sends the report that `make` makes to everybody who connects and may have it.

    It listens while it has been opened more often than closed.
    """

    def __init__(self, make: Callable[[], HostReport]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._users = 0
        self._listener: socket.socket | None = None
        forget_in_forked_child(self)

    def open(self) -> None:
        """Listen, unless it does already. Where it cannot, the host stays unlisted."""
        with self._lock:
            self._users += 1
            if self._listener is None and sys.platform == "linux":
                with contextlib.suppress(OSError):
                    self._listen()

    def close(self) -> None:
        """Undo one `open`; with the last, stop listening."""
        with self._lock:
            self._users -= 1
            listener = self._listener
            if self._users == 0 and listener is not None:
                self._listener = None
                death_watch.forget(listener.fileno())
                listener.close()

    def forget_parent(self) -> None:
        """Close this process's descriptor, in a forked child; the parent goes on listening."""
        self._lock = threading.RLock()
        self._users = 0
        if self._listener is not None:
            # Or the name would outlive the parent.
            self._listener.close()
            self._listener = None

    def _listen(self) -> None:
        host = os.getpid()
        name = f"\0{_PREFIX}{host}/{start_time_of(host)}/{next(_numbers)}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(name)
            listener.listen()
            death_watch.watch(listener.fileno(), self._accept)
        except BaseException:
            listener.close()
            raise
        self._listener = listener

    def _accept(self) -> None:
        with self._lock:
            listener = self._listener
            if listener is None:
                return
            try:
                connection, _ = listener.accept()
            except OSError:
                connection = None
            death_watch.watch(listener.fileno(), self._accept)
        if connection is None:
            return
        if _peer(connection)[1] not in (0, os.geteuid()):
            connection.close()
            return
        # On a thread of its own: the report takes a while, and the other may be slow to read.
        threading.Thread(
            target=self._answer, args=(connection,), name="probate-status", daemon=True
        ).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(_PATIENCE)
            try:
                connection.sendall(self._make().model_dump_json().encode())
            except OSError:
                return  # The other has gone away.


def hosts() -> list[HostReport]:
    """Ask all hosts on this machine for their reports, and return those that answer.

    Those of other users answer root only. Raises OSError where there is no /proc/net/unix.
    """
    reports = [report for name in _names() if (report := _ask(name)) is not None]
    return sorted(reports, key=lambda report: report.os_pid)


def _names() -> Iterator[str]:
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[3] == _ACCEPTS and fields[7].startswith(f"@{_PREFIX}"):
            yield fields[7].removeprefix("@")


def _ask(name: str) -> HostReport | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(f"\0{name}")
            os_pid, uid, _ = _peer(connection)
            # Anybody can bind such a name, but the kernel tells who did.
            if str(os_pid) != name.removeprefix(_PREFIX).split("/")[0]:
                return None
            if os.geteuid() != 0 and uid != os.geteuid():
                return None
            text = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            return HostReport.model_validate_json(text)
        except (OSError, ValidationError):
            return None


def _peer(connection: socket.socket) -> tuple[int, int, int]:
    """Return the pid, uid and gid at the other end, as the kernel knows them."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    os_pid, uid, gid = _UCRED.unpack(raw)
    return os_pid, uid, gid
