"""Reports of running hosts on their processes, for `probate ps`: to the same user, and to root.

A host that has spawned something listens at an abstract unix socket (unix(7)). The kernel frees
the name when the host dies, however it dies, so nothing is ever left behind.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Final, final

from pydantic import BaseModel, ConfigDict, Field

from probate.errors import ProbateError
from probate.models import OsUsage, ProcessInfo
from probate.system.deathwatch import death_watch
from probate.system.forking import forget_in_forked_child
from probate.system.osprocess import start_time_of
from probate.system.peer import peer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.orchestrator import ResourceOrchestrator
    from probate.system.deathwatch import Timer

#: What follows in the name is the host's OS pid, its start time, and a number, all with a slash.
NAME_PREFIX: Final = "probate-host/"
_numbers: Final = itertools.count(1)

#: Seconds that a host waits for one who asked, and is slow to read.
_PATIENCE: Final = 5.0

#: Seconds until connections are accepted again, when there were no descriptors for one.
_PAUSE: Final = 0.5

#: As the kernel counts: what a host says is added up, and has to have an end.
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


@final
class Holding(_Frozen):
    """Counts what a process owns of one kind."""

    count: _Count
    nbytes: _Count


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
    #: Whose it is, as the kernel tells the one who asked.
    uid: int | None = None
    #: Why it is not known which processes it has; empty if it is.
    problem: str = ""


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
        #: Goes on accepting, when there were no descriptors for a connection.
        self._pause: Timer | None = None
        forget_in_forked_child(self)

    def open(self) -> None:
        """Listen, unless it does already. Where it cannot, the host stays unlisted."""
        with self._lock:
            self._users += 1
            if self._users > 0 and self._listener is None and sys.platform == "linux":
                with contextlib.suppress(OSError):
                    self._listen()

    def close(self) -> None:
        """Undo one `open`; with the last, stop listening."""
        with self._lock:
            self._users -= 1
            listener = self._listener
            if self._users == 0 and listener is not None:
                self._listener = None
                if self._pause is not None:
                    death_watch.cancel(self._pause)
                death_watch.forget(listener.fileno())
                listener.close()

    def forget_parent(self) -> None:
        """Close this process's descriptor, in a forked child; the parent goes on listening."""
        self._lock = threading.RLock()
        self._users = 0
        self._pause = None
        if self._listener is not None:
            # Or the name would outlive the parent.
            self._listener.close()
            self._listener = None

    def _listen(self) -> None:
        host = os.getpid()
        name = f"\0{NAME_PREFIX}{host}/{start_time_of(host)}/{next(_numbers)}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(name)
            listener.listen()
            death_watch.watch(listener.fileno(), self._accept)
        except BaseException:
            listener.close()
            raise
        self._listener = listener

    def _watch(self) -> None:
        """Be told of the next connection."""
        with self._lock:
            self._pause = None
            if self._listener is not None:
                death_watch.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        with self._lock:
            if self._listener is None:
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                # Whoever it was has gone away.
                self._watch()
                return
            except OSError:
                # No descriptors, or memory, for it. It stays ready: to be told at once would be to
                # be told for ever.
                self._pause = death_watch.call_later(_PAUSE, self._watch)
                return
            self._watch()
        if peer_of(connection)[1] not in (0, os.geteuid()):
            connection.close()
            return
        # On a thread of its own: the report takes a while, and the other may be slow to read.
        thread = threading.Thread(
            target=self._answer, args=(connection,), name="probate-status", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            # No more threads. It is seen to have hung up.
            connection.close()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(_PATIENCE)
            try:
                connection.sendall(self._make().model_dump_json().encode())
            except OSError:
                return  # The other has gone away.
