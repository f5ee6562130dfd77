"""Probate's kind `memory`.

resource.py      MemoryResource: the kind as the orchestrator has it
manager.py       MemoryManager: makes memory for processes
observing.py     shared memory that another OS process has attached
arguments.py     sizes, names, keys and modes, checked before anything is acquired
allocation.py    private memory
posixsegment.py  POSIX shared memory as owner or as user: unlinking, closing
untracked.py     SharedMemory that the interpreter's resource tracker knows nothing of
tracker.py       taking a segment off that tracker's list
noticing.py      what the kernel has noticed of a program that makes shared memory
sysvsegment.py   SysV segments as owner or as user: detaching, removing
sysv.py          sysv_ipc, with the exceptions of the os module
wiping.py        zeros to write over what is to be given back
referrers.py     whether anything else refers to what a close would pull from under it
peaks.py         the most bytes that a process has held
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate.system import lazy_names
from probate_memory.manager import MemoryManager
from probate_memory.resource import MemoryResource

if TYPE_CHECKING:
    from probate_memory.untracked import UntrackedSharedMemory

__all__ = ["MemoryManager", "MemoryResource", "UntrackedSharedMemory"]
if not TYPE_CHECKING:
    # With multiprocessing, which takes long to import.
    __getattr__ = lazy_names(__name__, {"UntrackedSharedMemory": "probate_memory.untracked"})
