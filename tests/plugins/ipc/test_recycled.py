"""A SysV id that has come round to another object is not ours to remove."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: In an IPC namespace of its own, where a process may choose the next id (sysctl(2)'s
#: kernel.msg_next_id and sem_next_id, which need CAP_CHECKPOINT_RESTORE there). An ordinary user
#: gets it with a user namespace (namespaces(7)).
SCRIPT = """
import ctypes, sys
from pathlib import Path
import sysv_ipc
from probate import ProcessManager, ResourceOrchestrator

CLONE_NEWIPC, CLONE_NEWUSER = 0x08000000, 0x10000000
sort, setting, make = {
    "queue": ("MessageQueue", "msg_next_id", "create_sysv_queue"),
    "semaphore": ("Semaphore", "sem_next_id", "create_sysv_semaphore"),
}[sys.argv[1]]
next_id = Path("/proc/sys/kernel") / setting
unshare = ctypes.CDLL(None).unshare
if unshare(CLONE_NEWIPC) and unshare(CLONE_NEWIPC | CLONE_NEWUSER):
    sys.exit("skip: no IPC namespace of its own is to be had here")
try:
    next_id.open("w").close()
except OSError as error:
    sys.exit(f"skip: the next id cannot be chosen here: {error}")
orchestrator = ResourceOrchestrator().discover(only=["ipc"])
manager = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0).build()
process = manager.create_process("p")
ours = getattr(orchestrator["ipc"].manager, make)(process.pid)
cls = getattr(sysv_ipc, sort)
cls(ours.key).remove()
next_id.write_text(str(ours.id))
theirs = cls(None, sysv_ipc.IPC_CREX)
assert theirs.id == ours.id
result = process.terminate()
print(result.is_success, result.stats.resources_freed, cls(theirs.key).id == theirs.id)
"""


@pytest.mark.parametrize("sort", ["queue", "semaphore"])
def test_a_successor_with_the_same_id_and_user_is_left_alone(sort: str) -> None:
    """Before it is removed, the kernel is asked what is under our own key."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, sort],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.stderr.startswith("skip: "):
        pytest.skip(done.stderr)

    assert (done.stderr, done.stdout) == ("", "True 0 True\n")
