"""Probate's kind `rings`.

resource.py       RingResource: the hooks, over both sorts of rings
manager.py        ZeroCopyIpc and IoUringManager: make rings for processes
ringmanager.py    what both do the same way: own, stop, free
observing.py      io_uring instances of another OS process
zerocopy.py       ZeroCopyRing: one end of a ring in shared memory
queues.py         its two queues, and the order in which memory is written
blocks.py         its blocks, and which are in somebody's hands
layout.py         where everything lies in that memory
memory.py         sealed memfds and their mappings
peer.py           whether the OS process at the other end is alive
uring.py          IoUring: one io_uring instance
operation.py      operations, and what they need alive until they complete
kernelring.py     its system calls, and the memory that it shares with the kernel
interruptible.py  waits that can be ended from elsewhere
errors.py         what goes wrong with rings
"""

from __future__ import annotations

from probate_rings.errors import (
    IoUringUnavailableError,
    RingClosedError,
    RingCorruptedError,
    RingFormatError,
    RingFullError,
    UnsupportedMachineError,
)
from probate_rings.manager import IoUringManager, ZeroCopyIpc
from probate_rings.operation import Completion
from probate_rings.resource import RingResource
from probate_rings.uring import IoUring
from probate_rings.zerocopy import ZeroCopyRing

__all__ = [
    "Completion",
    "IoUring",
    "IoUringManager",
    "IoUringUnavailableError",
    "RingClosedError",
    "RingCorruptedError",
    "RingFormatError",
    "RingFullError",
    "RingResource",
    "UnsupportedMachineError",
    "ZeroCopyIpc",
    "ZeroCopyRing",
]
