"""Probate's kind `sockets`.

resource.py      SocketResource: the hooks
manager.py       SocketManager: makes sockets for processes
observing.py     sockets that another OS process has open
nettables.py     what the kernel says of sockets, its own and others'
address.py       addresses and paths, checked before anything is acquired
adoption.py      what is taken from elsewhere, and what takes care of it
plain.py         PlainSocket: what is done before a socket is closed
many.py          many plain sockets at once
loopbound.py     LoopBound: servers and transports, which only their own loop may touch
threadserver.py  ThreadServer: socketserver's servers
asyncstream.py   AsyncStream: sockets, streams and listeners of trio and anyio
onloop.py        a plain socket that something else uses: found, and detached there
polling.py       which socketserver servers run on a number
blocked.py       waking a thread that is blocked in a socket
makefiles.py     files that makefile has put above a socket
unix.py          unix listeners and the paths they leave behind
"""

from __future__ import annotations

from probate_sockets.manager import SocketManager
from probate_sockets.resource import SocketResource

__all__ = ["SocketManager", "SocketResource"]
