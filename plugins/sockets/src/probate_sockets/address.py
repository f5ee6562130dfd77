"""Addresses, checked before anything is acquired."""

from __future__ import annotations

import os
import socket
from typing import Any, Final

from probate.system import checked_int

#: `sun_path` has 108 bytes, the last a NUL (unix(7)).
_UNIX_PATH_MAX: Final = 107

#: Family, type, protocol and socket address, as `socket` and `bind` want them.
Endpoint = tuple[socket.AddressFamily, socket.SocketKind, int, Any]


def resolve(address: object, kind: socket.SocketKind, *, passive: bool) -> list[Endpoint]:
    """Turn `(host, port)` into the endpoints that it means, IPv4 or IPv6, best first.

    An empty host is every interface when `passive`, else this machine. Raises TypeError or
    ValueError for what is no such pair, socket.gaierror for a name that does not resolve.
    """
    if not isinstance(address, tuple) or not 2 <= len(address) <= 4:
        raise TypeError(f"expected an address (host, port), got {address!r}")
    host, port = address[:2]
    if not isinstance(host, str):
        raise TypeError(f"the host of an address must be a string, got {host!r}")
    port = checked_int("the port of an address", port, least=0, most=65535)
    flags = socket.AI_PASSIVE if passive else 0
    found = socket.getaddrinfo(host or None, port, type=kind, flags=flags)
    return [(family, type_, protocol, sockaddr) for family, type_, protocol, _, sockaddr in found]


def unix_path(path: object) -> str:
    """Return a unix socket's path, absolute; one that begins with NUL is abstract and kept.

    Raises TypeError for what is no path, ValueError for one that the kernel has no room for.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"expected the path of a unix socket, got {path!r}")
    text = os.fspath(path)
    if not isinstance(text, str) or not text:
        raise TypeError(f"expected the path of a unix socket as a string, got {path!r}")
    if not is_abstract(text):
        # The working directory may be another one by the time that the path is unlinked.
        text = os.path.abspath(text)  # noqa: PTH100  Path.absolute keeps "..", and eats trailing dots
    if len(os.fsencode(text)) > _UNIX_PATH_MAX:
        raise ValueError(f"a unix socket's path has at most {_UNIX_PATH_MAX} bytes: {text!r}")
    return text


def is_abstract(path: str) -> bool:
    """Whether a unix socket's name lies in the abstract namespace, outside the file system."""
    return path.startswith("\0")


def shown(address: object) -> str:
    """Show a socket address: a host and a port, or what a unix socket is bound to."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return address.decode(errors="replace") if isinstance(address, bytes) else str(address)
