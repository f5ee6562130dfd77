"""What is taken from elsewhere: sockets, and what event loops and servers make of them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from probate.system import is_transport, loop_of, running_loop, transport_of
from probate_sockets import asyncstream, unix
from probate_sockets.asyncstream import AsyncStream
from probate_sockets.loopbound import LoopBound, is_server, sockets_of
from probate_sockets.plain import PlainSocket
from probate_sockets.threadserver import ThreadServer, is_thread_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    Owned = PlainSocket | LoopBound | ThreadServer | AsyncStream


def wrap(resource: Any) -> Owned | None:
    """Return what takes care of an object; None if it is nothing of this kind.

    Raises ValueError for what is closed, or does not tell its event loop.
    """
    if isinstance(resource, socket.socket):
        _check_open("socket", resource)
        return PlainSocket(resource)
    if is_thread_server(resource):
        _check_open("server", resource)
        return ThreadServer(resource)
    if asyncstream.is_stream(resource):
        transport = getattr(resource, "_transport", None)
        if is_transport(transport):
            # More gentle than its own `aclose`, which sends only what goes at once.
            return _bind_to_loop(transport, resource)
        return AsyncStream(resource)
    return _bind_to_loop(resource)


def paths_of(owned: Owned) -> list[unix.BoundPath]:
    """Return the unix paths that are unlinked with it."""
    if isinstance(owned, AsyncStream) or owned.bound is None:
        return []
    return owned.bound if isinstance(owned, LoopBound) else [owned.bound]


def parts_of(thing: Any) -> Iterable[Any]:
    """Return the sockets that something was made of, if it is what a socket may lie below."""
    if is_server(thing) or is_transport(thing):
        return sockets_of(thing)
    if is_thread_server(thing):
        return (thing.socket,)
    return asyncstream.raw_sockets(thing) if asyncstream.is_stream(thing) else ()


def _check_open(what: str, thing: Any) -> None:
    """Raise ValueError if its number is not a socket's: closed, perhaps by its bare number."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.fstat(thing.fileno()).st_mode):
            return
    raise ValueError(f"a closed {what} cannot be adopted: {thing!r}")


def _bind_to_loop(resource: Any, adopted: Any = None) -> LoopBound | None:
    adopted = resource if adopted is None else adopted
    resource = transport_of(resource)
    if is_server(resource):
        loop = resource.get_loop()
    elif is_transport(resource):
        # Transports have no get_loop(); they are made, and best adopted, on their loop.
        loop = loop_of(resource) or running_loop()
        if loop is None:
            if resource.is_closing():
                # A transport of asyncio's forgets its loop when it has closed.
                raise _closed(resource)
            raise ValueError(f"adopt {resource!r} on its own event loop")
    else:
        return None
    bound = LoopBound(resource, loop, adopted)
    if bound.has_closed():
        if not bound.parts and is_transport(resource) and not resource.is_closing():
            return None
        raise _closed(resource)
    if is_server(resource):
        paths = map(unix.bound_path, bound.parts)
        bound.bound.extend(path for path in paths if path is not None)
    return bound


def _closed(resource: object) -> ValueError:
    return ValueError(f"closed, so it cannot be adopted: {resource!r}")
