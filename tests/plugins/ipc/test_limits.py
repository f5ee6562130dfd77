"""Limits of the kernel that are reached: which one, by its name, with the number of the error."""

from __future__ import annotations

import errno
import resource
from typing import TYPE_CHECKING

import pytest
from ipc_namespace import errors_in_namespace

from probate import ProbateError
from probate_ipc import QueueTooLargeError

if TYPE_CHECKING:
    from probate_ipc import IpcManager

#: Without root's rights, which some of the limits do not bind.
_SCRIPT = """
from probate_ipc import IpcManager

ipc = IpcManager()

def as_nobody(call):
    os.seteuid(65534)
    try:
        call()
    finally:
        os.seteuid(0)

set_limit("fs.mqueue.queues_max", "1")
tell("POSIX queues", lambda: as_nobody(lambda: [ipc.create_posix_queue(1) for _ in range(2)]))
ipc.cleanup(1)
set_limit("fs.mqueue.queues_max", "256")
set_limit("fs.mqueue.msg_max", "5")
tell("messages", lambda: as_nobody(lambda: ipc.create_posix_queue(1)))
set_limit("fs.mqueue.msg_max", "10")
set_limit("fs.mqueue.msgsize_max", "512")
tell("message size", lambda: as_nobody(lambda: ipc.create_posix_queue(1)))
set_limit("kernel.msgmni", "1")
tell("SysV queues", lambda: [ipc.create_sysv_queue(1) for _ in range(2)])
set_limit("kernel.sem", "250 32000 32 1")
tell("semaphore sets", lambda: [ipc.create_sysv_semaphore(1) for _ in range(2)])
set_limit("kernel.sem", "250 1 32 128")
tell("semaphores", lambda: [ipc.create_sysv_semaphore(1) for _ in range(2)])
set_limit("kernel.sem", "0 1 32 128")
tell("semaphores of a set", lambda: ipc.create_sysv_semaphore(1))
ipc.cleanup(1)
"""


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[str, int, str]]:
    """What is raised beyond each limit."""
    return errors_in_namespace(_SCRIPT)


@pytest.mark.needs_root(reason="lowers limits, in an IPC namespace")
@pytest.mark.parametrize(
    ("case", "number", "said"),
    [
        ("POSIX queues", errno.ENOSPC, "(fs.mqueue.queues_max is 1): unlink some, or raise it"),
        ("messages", errno.EINVAL, "(fs.mqueue.msg_max is 5, fs.mqueue.msgsize_max is 8192)"),
        ("message size", errno.EINVAL, "(fs.mqueue.msg_max is 10, fs.mqueue.msgsize_max is 512)"),
        ("SysV queues", errno.ENOSPC, "(kernel.msgmni is 1): remove some (ipcrm(1)), or raise it"),
        ("semaphore sets", errno.ENOSPC, "(SEMMNI), or as many in all (SEMMNS), as there may be"),
        ("semaphores", errno.ENOSPC, "(kernel.sem is 250 1 32 128): remove some"),
        ("semaphores of a set", errno.EINVAL, "(SEMMSL, kernel.sem is 0 1 32 128): raise it"),
    ],
)
def test_each_limit_is_named_with_the_errno_of_its_call(
    told: dict[str, tuple[str, int, str]], case: str, number: int, said: str
) -> None:
    """As mq_open(3), msgget(2) and semget(2) have it: "too many open files" was said of most."""
    _, found, text = told[case]

    assert found == number
    assert said in text
    assert "sysctl(8)" in text


def test_bytes_of_queues_are_of_a_user_in_all_programs(ipc: IpcManager, pid: int) -> None:
    """EMFILE, RLIMIT_MSGQUEUE and `ulimit -q`: the tenth queue of a *user* said none of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, hard))
    try:
        with pytest.raises(OSError, match=r"of this user, in all programs \(RLIMIT_MSGQ") as caught:
            ipc.create_posix_queue(pid, "/probate-test-limits")
    finally:
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (soft, hard))

    assert caught.value.errno == errno.EMFILE
    assert "'/probate-test-limits'" in str(caught.value)
    assert "`ulimit -q`" in str(caught.value)


def test_too_large_a_queue_is_an_error_of_each_sort(ipc: IpcManager, pid: int) -> None:
    """The system call's, one of the arguments, and ours."""
    with pytest.raises(QueueTooLargeError, match=r"fs\.mqueue\.msg_max is \d+, ") as caught:
        ipc.create_posix_queue(pid, max_messages=10**9)

    assert caught.value.errno == errno.EINVAL
    for sort in (OSError, ValueError, ProbateError):
        assert isinstance(caught.value, sort)


@pytest.mark.needs_root(reason="puts another folder in the place of /dev/shm, for itself")
@pytest.mark.parametrize(
    ("options", "number", "said"),
    [
        ("ro", errno.EROFS, "POSIX semaphore '/probate-"),
        ("size=4k,nr_inodes=1", errno.ENOSPC, "no room in /dev/shm, where they are kept"),
    ],
)
def test_semaphores_tell_of_the_folder_that_they_are_kept_in(
    options: str, number: int, said: str
) -> None:
    """sem_open(3) makes files in /dev/shm."""
    told = errors_in_namespace(f"""
        import subprocess
        from probate_ipc import IpcManager

        assert ctypes.CDLL(None).unshare(0x00020000) == 0  # CLONE_NEWNS
        for command in (
            ["mount", "--make-rprivate", "/"],
            ["mount", "-t", "tmpfs", "-o", "{options}", "tmpfs", "/dev/shm"],
        ):
            subprocess.run(command, check=True)
        tell("semaphore", lambda: IpcManager().create_posix_semaphore(1))
    """)

    assert told["semaphore"][1] == number
    assert said in told["semaphore"][2]
