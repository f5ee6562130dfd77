"""What the kernel says of the sockets of a process's network namespace (proc(5), /proc/PID/net).

Not by psutil: it looks into its own namespace only, and fails for all processes where any unix
socket has a line break in its name, which anybody may bind.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.system import read_proc
from probate_sockets.address import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The tables that have their columns in common.
_TABLES: Final = {
    "tcp": (socket.AF_INET, "INET stream"),
    "tcp6": (socket.AF_INET6, "INET6 stream"),
    "udp": (socket.AF_INET, "INET dgram"),
    "udp6": (socket.AF_INET6, "INET6 dgram"),
    "raw": (socket.AF_INET, "INET raw"),
    "raw6": (socket.AF_INET6, "INET6 raw"),
}

#: TCP_LISTEN, and the flag of a unix socket that accepts connections (__SO_ACCEPTCON).
_LISTENS: Final = b"0A"
_ACCEPTS: Final = b"00010000"

#: Where a line of the table of unix sockets begins: a name, which ends the one before, may have
#: any byte in it.
_BETWEEN: Final = rb"\n(?=[0-9a-f]+: [0-9A-F]{8} )"

#: A line of it: flags, type, state, inode, name.
_UNIX: Final = rb"(?s)[0-9a-f]+: \S+ \S+ (\S+) ([0-9A-F]+) ([0-9A-F]+) +(\d+)(?: (.*))?"


@final
class UnixSocket(NamedTuple):
    """Describes one unix socket; an abstract name begins with "@"."""

    inode: bytes
    type: int
    #: 1 unconnected, 2 connecting, 3 connected.
    state: int
    is_listener: bool
    name: bytes

    def __str__(self) -> str:
        """Describe it as other sockets are described."""
        try:
            kind = socket.SocketKind(self.type).name.removeprefix("SOCK_").lower()
        except ValueError:
            kind = f"type {self.type}"
        parts = ["UNIX", kind, "listener" if self.is_listener else "", os.fsdecode(self.name)]
        return " ".join(filter(None, parts))


def unix_sockets(process: str) -> Iterator[UnixSocket]:
    """Yield those of the network namespace of a process. Raises OSError."""
    for line in re.split(_BETWEEN, read_proc(f"/proc/{process}/net/unix").removesuffix(b"\n")):
        if found := re.fullmatch(_UNIX, line):
            flags, kind, state, inode, name = found.groups(default=b"")
            yield UnixSocket(inode, int(kind, 16), int(state, 16), flags == _ACCEPTS, name)


def descriptions(process: str) -> dict[str, str]:
    """Describe TCP, UDP, raw and unix sockets of its network namespace, by inode.

    As far as the kernel tells, who lists no socket that is neither bound nor connected.
    """
    found: dict[str, str] = {}
    with suppress(OSError):
        found = {each.inode.decode(): str(each) for each in unix_sockets(process)}
    for table, (family, name) in _TABLES.items():
        with suppress(OSError):
            for line in read_proc(f"/proc/{process}/net/{table}").splitlines()[1:]:
                words = line.split()
                parts = [name, "listener" if words[3] == _LISTENS and "stream" in name else ""]
                parts.append(_address(family, words[1]))
                if peer := _address(family, words[2]):
                    parts.append(f"to {peer}")
                found[words[9].decode()] = " ".join(filter(None, parts))
    return found


def _address(family: int, text: bytes) -> str:
    """Show one that is written as words in hexadecimal and a port; nothing without a port."""
    words, _, port = text.partition(b":")
    if port == b"0000":
        return ""
    packed = b"".join(
        int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8)
    )
    return shown((socket.inet_ntop(family, packed), int(port, 16)))
