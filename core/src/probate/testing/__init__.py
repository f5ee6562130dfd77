"""Helpers for tests of plugins and of what uses them.

witness.py  KernelView: what the kernel says this OS process holds
"""

from __future__ import annotations

from probate.testing.witness import KernelView

__all__ = ["KernelView"]
