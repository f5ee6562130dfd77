"""What the kernel says has changed, once it has come to rest."""

from __future__ import annotations

import gc
import time

from probate.kernel import KernelView


def changes_since(before: KernelView) -> list[str]:
    """What is otherwise than before, a line each, as soon as nothing is, or after some time.

    A thread that has been joined is still to be seen for a moment: Python lets go of it first.
    """
    gc.collect()
    deadline = time.monotonic() + 5
    while (changes := before.differences(KernelView.take())) and time.monotonic() < deadline:
        time.sleep(0.001)
    return changes
