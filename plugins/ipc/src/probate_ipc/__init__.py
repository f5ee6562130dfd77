"""Probate's kind `ipc`.

resource.py    IpcResource: the hooks
manager.py     IpcManager: makes pipes, queues and semaphores for processes
arguments.py   arguments, checked before anything is acquired
adoption.py    what of things made elsewhere is of this kind
handle.py      what everything owned of this kind can do
pipe.py        pipes
connection.py  multiprocessing's connections and listeners
inprocess.py   bounded queues between threads and tasks
topic.py       publish and subscribe
messages.py    messages, and the memory that they lie in
waiters.py     threads and tasks that wait for a queue
posixqueue.py  POSIX message queues
sysvqueue.py   SysV message queues
semaphore.py   semaphores of both sorts
semtimedop.py  the wait for SysV semaphores with a timeout
sysv.py        SysV ids, and their removal
native.py      posix_ipc and sysv_ipc, with types and Python's own errors
interruptible.py waits that can be ended from elsewhere
errors.py      what goes wrong
"""

from __future__ import annotations

from probate_ipc.errors import (
    PipeClosedError,
    QueueClosedError,
    QueueEmptyError,
    QueueFullError,
    SemaphoreClosedError,
)
from probate_ipc.inprocess import InProcessQueue, QueueKind
from probate_ipc.manager import IpcManager
from probate_ipc.pipe import PipeReader, PipeWriter
from probate_ipc.posixqueue import PosixQueue
from probate_ipc.resource import IpcResource
from probate_ipc.semaphore import PosixSemaphore, SysvSemaphore
from probate_ipc.sysvqueue import SysvQueue
from probate_ipc.topic import Overflow, Subscription, Topic

__all__ = [
    "InProcessQueue",
    "IpcManager",
    "IpcResource",
    "Overflow",
    "PipeClosedError",
    "PipeReader",
    "PipeWriter",
    "PosixQueue",
    "PosixSemaphore",
    "QueueClosedError",
    "QueueEmptyError",
    "QueueFullError",
    "QueueKind",
    "SemaphoreClosedError",
    "Subscription",
    "SysvQueue",
    "SysvSemaphore",
    "Topic",
]
