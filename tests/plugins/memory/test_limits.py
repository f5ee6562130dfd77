"""Limits of the kernel that are reached: which one, by its name, with the number of the error."""

from __future__ import annotations

import errno
import resource
from typing import TYPE_CHECKING

import pytest
from ipc_namespace import errors_in_namespace

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_memory import MemoryManager

_SCRIPT = """
import subprocess
from probate_memory import MemoryManager

memory = MemoryManager()
set_limit("kernel.shmmni", "1")
tell("segments", lambda: [memory.create_segment(1, 4096) for _ in range(2)])
memory.cleanup(1)
set_limit("kernel.shmmni", "4096")
set_limit("kernel.shmall", "1")
tell("pages", lambda: memory.create_segment(1, 8192))
set_limit("kernel.shmmax", "4096")
tell("size", lambda: memory.create_segment(1, 8192))

assert ctypes.CDLL(None).unshare(0x00020000) == 0  # CLONE_NEWNS
for command in (
    ["mount", "--make-rprivate", "/"],
    ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"],
):
    subprocess.run(command, check=True)
tell("room", lambda: memory.create_shared_memory(1, size=1 << 20))
subprocess.run(["mount", "-o", "remount,ro", "/dev/shm"], check=True)
tell("read-only", lambda: memory.create_shared_memory(1, size=4096))
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev"], check=True)
tell("no folder", lambda: memory.create_shared_memory(1, size=4096))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[str, int, str]]:
    """What is raised beyond each limit."""
    return errors_in_namespace(_SCRIPT)


@pytest.mark.needs_root(reason="lowers limits, and mounts, in namespaces")
@pytest.mark.parametrize(
    ("case", "number", "said"),
    [
        ("segments", errno.ENOSPC, "more than kernel.shmmni (1) or kernel.shmall ("),
        ("pages", errno.ENOSPC, "kernel.shmall (1) allows; ask for less, or raise it by sysctl"),
        ("size", errno.EINVAL, "more than kernel.shmmax (4096) allows; ask for less, or raise it"),
        ("room", errno.ENOSPC, "for 1048576 bytes: ask for less, or enlarge it: '/dev/shm'"),
        ("read-only", errno.EROFS, "for 4096 bytes: mount it writable: '/dev/shm'"),
        ("no folder", errno.ENOENT, "for 4096 bytes: mount a tmpfs there: '/dev/shm'"),
    ],
)
def test_each_limit_is_named_with_the_errno_of_its_call(
    told: dict[str, tuple[str, int, str]], case: str, number: int, said: str
) -> None:
    """As shmget(2) and shm_open(3) have it; of SysV's there was no number, or no name."""
    _, found, text = told[case]

    assert found == number
    assert said in text


def test_a_segment_that_is_larger_than_files_may_be_is_not_made(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """POSIX segments are files: RLIMIT_FSIZE binds them, and is named."""
    owner = manager.create_process("owner")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="for 2097152 bytes: ask for less, or raise `ulimit -f`"):
            memory.create_shared_memory(owner.pid, size=1 << 21)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert owner.pid not in memory.table
