"""Where io_uring is missing: one clear error from create_ring, and the zero-copy half works."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from probate import ProbateError
from probate_rings import IoUringUnavailableError, RingResource

if TYPE_CHECKING:
    from probate_rings import IoUringManager

#: What every case ends with: the error is said, and a message goes through a zero-copy ring.
SAY = """
from probate_rings import IoUringUnavailableError, RingResource

resource = RingResource()
try:
    resource.iouring.create_ring(7, 8)
except IoUringUnavailableError as error:
    print(error)
assert not resource.has_resources(7)
ring = resource.zerocopy.create_ring(7)
with ring.sending() as block:
    ring.submit(5)
with ring.receiving() as message:
    assert len(message) == 5
assert resource.cleanup(7).resources_freed == 1
"""

#: Has the kernel refuse io_uring_setup (425), as a container's seccomp profile does.
FILTER = """
import ctypes, struct, sys

number = int(sys.argv[1])
code = b"".join((
    struct.pack("=HBBI", 0x20, 0, 0, 0),  # load the system call's number
    struct.pack("=HBBI", 0x15, 0, 1, 425),  # is it io_uring_setup?
    struct.pack("=HBBI", 0x06, 0, 0, 0x00050000 | number),  # refuse with that errno
    struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000),  # allow
))
buffer = ctypes.create_string_buffer(code)
program = struct.pack("@HP", 4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, program) == 0, ctypes.get_errno()  # PR_SET_SECCOMP, filter
"""


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSYS, "does not have it (ENOSYS)"),
        (errno.EPERM, "kernel.io_uring_disabled"),
    ],
)
def test_without_the_kernel(number: int, words: str) -> None:
    """A kernel that refuses io_uring_setup: what to look at."""
    done = subprocess.run(
        [sys.executable, "-c", FILTER + SAY, str(number)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "io_uring is not available" in done.stdout
    assert "zero-copy rings work without it" in done.stdout
    assert words in done.stdout


def test_machines_of_weaker_order_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queues are shared with the kernel, in the order in which x86-64 loads and stores."""
    uname = os.uname()
    arm = os.uname_result((*uname[:4], "aarch64"))
    monkeypatch.setattr(os, "uname", lambda: arm)

    with pytest.raises(IoUringUnavailableError, match="memory order of x86-64"):
        RingResource().iouring.create_ring(7, 8)


def test_other_refusals_are_the_kernels_own(
    iouring: IoUringManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOMEM or EMFILE are about this one ring: OSError as it comes."""

    def refuse(*arguments: object) -> int:
        ctypes.set_errno(errno.ENOMEM)
        return -1

    libc = SimpleNamespace(syscall=refuse)
    monkeypatch.setattr("probate_rings.kernelring._libc", lambda: libc)

    with pytest.raises(OSError, match="Cannot allocate memory"):
        type(iouring)().create_ring(1, 8)


def test_the_error_is_one_of_ours() -> None:
    """It is caught as any error of Probate, and as a RuntimeError."""
    assert issubclass(IoUringUnavailableError, ProbateError)
    assert issubclass(IoUringUnavailableError, RuntimeError)
