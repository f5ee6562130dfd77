"""The witness for tests: what the kernel says, not our own tables.

witness.py  what the kernel says this OS process holds
"""

from __future__ import annotations

from probate.testing.witness import KernelView

__all__ = ["KernelView"]
