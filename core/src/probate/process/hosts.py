"""Asks the running hosts of this machine for their reports, all at once, for `probate ps`.

Anybody may bind the name of a host, say nothing, say it slowly, or say too much: so there is one
deadline for all, as much as a host and a user may say, and as many as are asked of a user at once.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections import Counter, defaultdict, deque
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from pydantic import ValidationError

from probate.process.status import NAME_PREFIX, HostReport
from probate.system.osprocess import read_proc
from probate.system.peer import peer_of

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that all hosts together get to answer.
_PATIENCE: Final = 5.0

#: Bytes that one host may say, and all hosts of one user together.
_MOST: Final = 8 << 20
_MOST_OF_USER: Final = 4 * _MOST

#: How many hosts of one user are asked at once.
_AT_ONCE: Final = 128

#: Seconds until a host is tried again that could not be connected to.
_PAUSE: Final = 0.05

#: The flag of a socket that accepts connections, in /proc/net/unix (__SO_ACCEPTCON).
_ACCEPTS: Final = "00010000"


def hosts() -> list[HostReport]:
    """Ask all hosts on this machine for their reports; of those that give none, say why.

    Those of other users answer root only. Raises OSError where there is no /proc/net/unix.
    """
    return _Inquiry(_names()).reports()


@final
class _Host:
    """One host that is being asked."""

    def __init__(self, name: str, os_pid: int, user: int) -> None:
        self.name = name
        self.os_pid = os_pid
        #: Of the process that the name names; for whose turn it is.
        self.user = user
        #: Who listens, as the kernel knows.
        self.uid: int | None = None
        self.connection: socket.socket | None = None
        self.said = bytearray()
        #: Why there is no report; empty if there is one.
        self.problem = f"took no connection within {_PATIENCE:g} s; whose it is is not known"

    def connect(self) -> bool:
        """Connect, and ask who listens; return whether it is the one that the name names.

        Raises BlockingIOError if it has no room for another connection now, OSError if it is gone
        or there are no descriptors.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(f"\0{self.name}")
            # Anybody can bind such a name, but the kernel tells who did.
            os_pid, self.uid, _ = peer_of(connection)
        except BaseException:
            connection.close()
            raise
        if os_pid == self.os_pid and os.geteuid() in (0, self.uid):
            self.connection = connection
            self.problem = f"did not answer within {_PATIENCE:g} s"
            return True
        connection.close()
        return False

    def is_asked(self) -> bool:
        """Whether it is this user's to ask, as far as is known of one that took no connection."""
        return self.uid is not None or os.geteuid() in (0, self.user)

    def listen(self, room: int) -> bool:
        """Take what it says; return whether that was all. `room` is what its user may still say."""
        if self.connection is None:
            return True
        try:
            piece = self.connection.recv(1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        self.said += piece
        if len(self.said) > min(_MOST, room):
            self.problem = f"said more than {_MOST >> 20} MiB, or all of its user did"
            return True
        if not piece:
            self.problem = "" if self.said else "hung up without an answer"
        return not piece

    def hang_up(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def report(self) -> HostReport:
        """Return what it has said, or why it said nothing."""
        if not self.problem:
            try:
                said = HostReport.model_validate_json(self.said)
            except ValidationError:
                self.problem = "its answer is no report"
            else:
                # Who it is, it does not say itself.
                known = {"os_pid": self.os_pid, "uid": self.uid, "problem": ""}
                return said.model_copy(update=known)
        return HostReport(
            os_pid=self.os_pid,
            command=_command_of(self.os_pid),
            processes=(),
            uid=self.uid,
            problem=self.problem,
        )


@final
class _Inquiry:
    """Asks many hosts at once. Used once."""

    def __init__(self, names: Iterator[str]) -> None:
        #: Those whose turn has not come, by user.
        self._waiting: defaultdict[int, deque[_Host]] = defaultdict(deque)
        self._asked: defaultdict[int, list[_Host]] = defaultdict(list)
        self._done: list[_Host] = []
        self._said: defaultdict[int, int] = defaultdict(int)
        counts: Counter[int] = Counter()
        found: list[tuple[bool, int, _Host]] = []
        for name in names:
            os_pid = name.removeprefix(NAME_PREFIX).split("/")[0]
            if os_pid.isdecimal() and (user := _user_of(os_pid)) is not None:
                host = _Host(name, int(os_pid), user)
                counts[host.os_pid] += 1
                found.append((user != os.geteuid(), counts[host.os_pid], host))
        # Our own come first, and of each program one before the second of any.
        for *_, host in sorted(found, key=itemgetter(0, 1)):
            self._waiting[host.user].append(host)

    def reports(self) -> list[HostReport]:
        """Ask until all have answered, or the time is over; return the reports by OS pid."""
        over = time.monotonic() + _PATIENCE
        with selectors.DefaultSelector() as selector:
            while (left := over - time.monotonic()) > 0:
                has_more = self._begin(selector)
                if not has_more and not selector.get_map():
                    break
                # In between, some may be asked whose turn had not come.
                for key, _ in selector.select(min(left, _PAUSE) if has_more else left):
                    self._listen(selector, key.data)
        silent = [*chain(*self._asked.values()), *chain(*self._waiting.values())]
        for host in silent:
            host.hang_up()
        found = [host for host in self._done if host.said]
        if others := [*silent, *(host for host in self._done if not host.said)]:
            # One that has stopped listening meanwhile is none any more.
            still = set(_names())
            found += [host for host in others if host.name in still and host.is_asked()]
        return sorted((host.report() for host in found), key=lambda report: report.os_pid)

    def _begin(self, selector: selectors.BaseSelector) -> bool:
        """Connect to those whose turn it is; return whether any have to wait for theirs."""
        for user, waiting in self._waiting.items():
            # Each once: those that have no room come last the next time.
            for _ in range(len(waiting)):
                if len(self._asked[user]) >= _AT_ONCE:
                    break
                host = waiting.popleft()
                try:
                    is_host = host.connect()
                except (BlockingIOError, TimeoutError):
                    waiting.append(host)
                except ConnectionError:
                    # It has ended.
                    pass
                except OSError:
                    # No descriptors: when others have answered.
                    waiting.appendleft(host)
                    break
                else:
                    if is_host and host.connection is not None:
                        self._asked[user].append(host)
                        selector.register(host.connection, selectors.EVENT_READ, host)
        return any(self._waiting.values())

    def _listen(self, selector: selectors.BaseSelector, host: _Host) -> None:
        before = len(host.said)
        if host.connection is None:
            return
        is_over = host.listen(_MOST_OF_USER - self._said[host.user] + before)
        self._said[host.user] += len(host.said) - before
        if is_over:
            selector.unregister(host.connection)
            host.hang_up()
            self._asked[host.user].remove(host)
            self._done.append(host)


def _names() -> Iterator[str]:
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[3] == _ACCEPTS and fields[7].startswith(f"@{NAME_PREFIX}"):
            yield fields[7].removeprefix("@")


def _user_of(os_pid: str) -> int | None:
    try:
        return os.stat(f"/proc/{os_pid}").st_uid  # noqa: PTH116  one call for each
    except OSError:
        return None


def _command_of(os_pid: int) -> tuple[str, ...]:
    """Read a command line; nothing if the process is gone."""
    try:
        words = read_proc(f"/proc/{os_pid}/cmdline").split(b"\0")[:-1]
    except OSError:
        return ()
    return tuple(word.decode(errors="backslashreplace") for word in words)
