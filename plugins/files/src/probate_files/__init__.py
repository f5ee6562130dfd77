"""Probate's kind `files`.

resource.py     FileResource: the hooks
manager.py      FileManager: makes files, locks and temporary things for processes
observing.py    files that another OS process has open
table.py        the ownership table, and which entry has which descriptor number
entry.py        what every owned thing can do
arguments.py    arguments, checked before anything is acquired
adoption.py     what was made elsewhere, and is ours to release
descriptor.py   descriptor numbers
layers.py       the layers that hold bytes back above a descriptor
openfile.py     file objects: flushing and closing
above.py        what stands above owned files, and is closed before them
polling.py      numbers that an event loop polls, which lets go of them first
flushing.py     the same on threads that can be left behind
temporary.py    temporary files and folders
library.py      locks and files of libraries, by what they can do
database.py     SQLite connections
numbers.py      descriptors that only a library knows
thread.py       things that one thread alone may give back
fifo.py         FIFOs
noted.py        what is noted in the journal, and removed by that
pinned.py       paths, pinned so that no successor is taken for them
locks.py        flock and open file description locks
waiting.py      waiting for a lock that somebody else holds
errors.py       buffered data that could not be written
"""

from __future__ import annotations

from probate_files.errors import LostDataError
from probate_files.locks import FileLock
from probate_files.manager import FileManager
from probate_files.resource import FileResource

__all__ = ["FileLock", "FileManager", "FileResource", "LostDataError"]
