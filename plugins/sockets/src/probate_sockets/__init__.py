"""Probate's kind `sockets`.

resource.py   SocketResource: the hooks
manager.py    SocketManager: makes sockets for processes
address.py    addresses and paths, checked before anything is acquired
unix.py       unix listeners and the paths they leave behind
loopbound.py  asyncio servers and transports, which only their own loop may touch
release.py    stopping and closing
blocked.py    in which descriptors other threads are blocked
"""

from __future__ import annotations

from probate_sockets.manager import SocketManager
from probate_sockets.resource import SocketResource

__all__ = ["SocketManager", "SocketResource"]
