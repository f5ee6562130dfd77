"""What the kernel says that descriptor numbers refer to (proc(5), /proc/PID/fd)."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def path_of(fd: int) -> str:
    """Return the kernel's name of what `fd` refers to: a path, or one such as "pipe:[4711]".

    Empty if it is not open.
    """
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def links_of(process: int | str) -> Iterator[tuple[str, str]]:
    """Yield the descriptors of a process, and what each is; none if it may not be looked into."""
    folder = f"/proc/{process}/fd"
    for number in listed(folder):
        with contextlib.suppress(OSError):
            yield number, os.readlink(f"{folder}/{number}")


def listed(folder: str) -> list[str]:
    """List a folder of /proc; nothing if it is gone, or may not be looked into."""
    try:
        return os.listdir(folder)  # noqa: PTH208  a fraction of the time
    except OSError:
        return []
