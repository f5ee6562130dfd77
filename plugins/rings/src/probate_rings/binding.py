"""The liburing package, imported when the first io_uring is made.

It is a thin binding of the C library of that name, and three of its ways are minded throughout:

- It holds the interpreter's lock in every call, so none that waits is ever made: waiting is
  done in poll(2) on the ring's descriptor, which io_uring makes readable for completions.
- It takes the address of a bytearray or bytes and lets go of the object: to keep that alive,
  and in its place, is our business. Of any other buffer it never lets go again (`Iovec`), so
  it is given none.
- What it cannot do ends the interpreter. A build for another CPU dies of SIGILL at the first
  call (2026.3.30 asks for AVX-512). So it is tried out in a child process before it is used,
  and where it dies so, `syscalls` does its work.
"""

# ruff: noqa: D102, N802  the calls are the C library's, described in its own man pages

from __future__ import annotations

import errno
import importlib
import importlib.util
import json
import signal
import subprocess
import sys
from typing import Any, Final, Protocol, cast

from probate_rings import syscalls
from probate_rings.errors import IoUringUnavailableError
from probate_rings.queues import is_strongly_ordered

_PACKAGE: Final = "liburing"
_INSTALL: Final = "pip install 'probate-rings[iouring]'"

#: Seconds for a child that needs a few hundredths of one.
_TRIAL_TIMEOUT: Final = 30.0

#: What the trial prints when all went well, and when the kernel said no, which it may not say
#: the next time.
_FINE: Final = "fine"
_REFUSED: Final = "refused"

#: What is said of a build that has instructions which this CPU lacks.
_OTHER_CPU: Final = "dies of SIGILL on this machine"

#: Uses every call that we use, once. Arguments: the module search path, as JSON.
_TRIAL: Final = f"""
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
sys.path[:] = json.loads(sys.argv[1])
import liburing as u
ring, cqe, buffer = u.Ring(), u.Cqe(), bytearray(8)
try:
    u.io_uring_queue_init(4, ring, 0)
except OSError:
    sys.exit(print("{_REFUSED}"))
limit = u.timespec(0.5)
for prepare, *arguments in (
    (u.io_uring_prep_nop,),
    (u.io_uring_prep_read, 0, buffer, 0),
    (u.io_uring_prep_write, 0, b'', 0),
    (u.io_uring_prep_timeout, limit, 0, 0),
    (u.io_uring_prep_cancel64, 0, u.IORING_ASYNC_CANCEL_ANY | u.IORING_ASYNC_CANCEL_ALL),
):
    assert u.io_uring_sq_space_left(ring)
    sqe = u.io_uring_get_sqe(ring)
    prepare(sqe, *arguments)
    u.io_uring_prep_nop(sqe)
    sqe.user_data = 2**63
    assert u.io_uring_sq_ready(ring) and u.io_uring_submit(ring)
    assert u.io_uring_cq_ready(ring) and not u.io_uring_cq_has_overflow(ring)
    u.io_uring_peek_cqe(ring, cqe)
    entry = cqe[0]
    assert entry.user_data == 2**63 and entry.res == 0
    u.io_uring_cqe_seen(ring, entry)
u.io_uring_get_events(ring)
u.io_uring_queue_exit(ring)
print("{_FINE}")
"""

#: What is wrong with a package, by its file; "" if nothing is.
_verdicts: dict[str, str] = {}


class RingHandle(Protocol):
    """`struct io_uring`."""

    @property
    def ring_fd(self) -> int: ...


class SqeHandle(Protocol):
    """`struct io_uring_sqe`."""

    user_data: int


class CqeHandle(Protocol):
    """`struct io_uring_cqe`; reading `res` raises OSError where it is negative."""

    @property
    def user_data(self) -> int: ...
    @property
    def res(self) -> int: ...


class CqePointer(Protocol):
    """`struct io_uring_cqe *`."""

    def __getitem__(self, index: int) -> CqeHandle: ...


class Binding(Protocol):
    """As much of the package as is used here; see io_uring(7) and the page of each function."""

    IORING_ASYNC_CANCEL_ALL: int
    IORING_ASYNC_CANCEL_ANY: int

    def Ring(self) -> RingHandle: ...
    def Cqe(self) -> CqePointer: ...
    def timespec(self, seconds: float) -> object: ...
    def io_uring_queue_init(self, entries: int, ring: RingHandle, flags: int) -> int: ...
    def io_uring_queue_exit(self, ring: RingHandle) -> None: ...
    def io_uring_get_sqe(self, ring: RingHandle) -> SqeHandle | None: ...
    def io_uring_prep_nop(self, sqe: SqeHandle) -> None: ...
    def io_uring_prep_read(
        self, sqe: SqeHandle, fd: int, buffer: bytearray, offset: int
    ) -> None: ...
    def io_uring_prep_write(
        self, sqe: SqeHandle, fd: int, data: bytes | bytearray, offset: int
    ) -> None: ...
    def io_uring_prep_timeout(self, sqe: SqeHandle, limit: Any, count: int, flags: int) -> None: ...
    def io_uring_prep_cancel64(self, sqe: SqeHandle, user_data: int, flags: int) -> None: ...
    def io_uring_submit(self, ring: RingHandle) -> int: ...
    def io_uring_sq_ready(self, ring: RingHandle) -> int: ...
    def io_uring_sq_space_left(self, ring: RingHandle) -> int: ...
    def io_uring_cq_ready(self, ring: RingHandle) -> int: ...
    def io_uring_cq_has_overflow(self, ring: RingHandle) -> bool: ...
    def io_uring_get_events(self, ring: RingHandle) -> int: ...
    def io_uring_peek_cqe(self, ring: RingHandle, cqe: CqePointer) -> int: ...
    def io_uring_cqe_seen(self, ring: RingHandle, entry: CqeHandle) -> None: ...


def load() -> Binding:
    """Import the package, after a trial; or what stands in for a build for another CPU.

    Raises IoUringUnavailableError if the package is missing, or of no use.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise IoUringUnavailableError("the package liburing is not installed", _INSTALL)
    fault = _verdicts.get(spec.origin)
    if fault is None:
        fault = _try_out()
        if fault == _REFUSED:
            # That will be said, and better, by the call itself.
            fault = ""
        else:
            _verdicts[spec.origin] = fault
    if fault == _OTHER_CPU and is_strongly_ordered():
        return cast("Binding", syscalls)
    if fault:
        raise IoUringUnavailableError(
            f"the installed package liburing {fault}", "install a build of it for this machine"
        )
    try:
        return cast("Binding", importlib.import_module(_PACKAGE))
    except ImportError as error:
        raise IoUringUnavailableError(
            f"the package liburing cannot be imported: {error}", _INSTALL
        ) from error


def unavailable(error: OSError) -> IoUringUnavailableError | None:
    """What a refusal by io_uring_setup(2) means; None if it is about this one ring only."""
    if error.errno == errno.ENOSYS:
        return IoUringUnavailableError(
            "this kernel, or a seccomp filter, does not have it (ENOSYS)",
            "it takes Linux 5.19 or later with CONFIG_IO_URING, and a container that lets it be",
        )
    if error.errno == errno.EPERM:
        return IoUringUnavailableError(
            "this process may not use it (EPERM)",
            "look at sysctl kernel.io_uring_disabled, and at the seccomp profile of the container",
        )
    return None


def _try_out() -> str:
    """Use the package in a child process; return what is wrong with it, "" or `_REFUSED`."""
    if not sys.executable:
        return "cannot be tried out: sys.executable names no interpreter"
    # The child takes the parent's search path from its argument, and nothing from around it.
    command = [sys.executable, "-I", "-S", "-c", _TRIAL, json.dumps(sys.path)]
    try:
        trial = subprocess.run(  # noqa: S603  our own interpreter and script
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TRIAL_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "hangs on this machine"
    # Not by its exit status, which is lost where SIGCHLD is ignored (wait(2)).
    said = trial.stdout.strip()
    if said in {_FINE, _REFUSED}:
        return "" if said == _FINE else _REFUSED
    if trial.returncode < 0:
        return f"dies of {signal.Signals(-trial.returncode).name} on this machine"
    last_words = trial.stderr.strip().rpartition("\n")[2]
    return f"does not work: {last_words or 'no reason given'}"
