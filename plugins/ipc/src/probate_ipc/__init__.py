"""Probate's kind `ipc`.

resource.py    IpcResource: the hooks
manager.py     IpcManager: makes pipes, queues and semaphores for processes
observing.py   what another OS process has open of it
arguments.py   arguments, checked before anything is acquired
adoption.py    what of things made elsewhere is of this kind
handle.py      what everything owned of this kind can do
pipe.py        pipes
connection.py  multiprocessing's connections and listeners
pipetransport.py transports of event loops on pipes
transports.py  those that are owned, or stand above what is
inprocess.py   bounded queues between threads and tasks
waiters.py     threads and tasks that wait for such a queue
kernelobject.py what the kernel's queues and semaphores have in common
messagequeue.py POSIX and SysV message queues
semaphore.py   semaphores of both sorts
semfile.py     the creation of a POSIX one in one step
semtimedop.py  the wait for SysV semaphores with a timeout
sysv.py        SysV ids, and their removal
named.py       what outlives its maker: found, and removed, when that is dead
limits.py      which limit of the kernel was reached
native.py      posix_ipc and sysv_ipc, whose errors become Python's own
interruptible.py waits that can be ended from elsewhere
errors.py      what goes wrong
"""

from __future__ import annotations

from probate_ipc.errors import (
    PipeClosedError,
    QueueClosedError,
    QueueEmptyError,
    QueueFullError,
    QueueTooLargeError,
    SemaphoreClosedError,
)
from probate_ipc.inprocess import InProcessQueue, QueueKind
from probate_ipc.manager import IpcManager
from probate_ipc.messagequeue import PosixQueue, SysvQueue
from probate_ipc.pipe import PipeReader, PipeWriter
from probate_ipc.resource import IpcResource
from probate_ipc.semaphore import PosixSemaphore, SysvSemaphore

__all__ = [
    "InProcessQueue",
    "IpcManager",
    "IpcResource",
    "PipeClosedError",
    "PipeReader",
    "PipeWriter",
    "PosixQueue",
    "PosixSemaphore",
    "QueueClosedError",
    "QueueEmptyError",
    "QueueFullError",
    "QueueKind",
    "QueueTooLargeError",
    "SemaphoreClosedError",
    "SysvQueue",
    "SysvSemaphore",
]
