"""A mount namespace of a test's own: what is mounted there is mounted nowhere else."""

from __future__ import annotations

import ctypes
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

_CLONE_NEWNS = 0x00020000


def enter_mount_namespace() -> None:
    """Leave that of all others, as root; for a forked child (mount_namespaces(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def mount_tmpfs(folder: os.PathLike[str], options: str) -> None:
    """Mount an empty file system of such a size, say, over a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
