"""What the kernel says has changed."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probate.testing.witness import KernelView


def changes_since(before: KernelView) -> list[str]:
    """What is otherwise than before, a line each, without what is merely garbage."""
    gc.collect()
    return before.changes()
