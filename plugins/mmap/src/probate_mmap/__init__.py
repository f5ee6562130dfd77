"""Probate's kind `mmap`.

resource.py    MappingResource: the hooks
manager.py     MmapManager: makes memory maps for processes, syncs and unmaps them
observing.py   files that another OS process has mapped
memorymap.py   MemoryMap: an `mmap.mmap` that holds no descriptor
filespan.py    a part of a file, checked before anything is acquired
backing.py     the file behind a temporary map
foreign.py     maps made elsewhere: `mmap.mmap` and numpy memmaps
region.py      what is mapped, by our own word or by the kernel's
owned.py       one owned map: how it is synced, unmapped and described
lane.py        syncs in the background, one lane for each device
libc.py        what the mmap module does not offer
"""

from __future__ import annotations

from probate_mmap.manager import MmapManager
from probate_mmap.memorymap import MemoryMap
from probate_mmap.resource import MappingResource

__all__ = ["MappingResource", "MemoryMap", "MmapManager"]
