"""Work in a child of its own, which may die of it, or become another user.

A store that was cut off is a SIGBUS in whoever maps it; a file system may hang.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import select
import signal
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

from probate.errors import describe_error

if TYPE_CHECKING:
    from collections.abc import Callable

#: The most bytes that are taken of a child's answer.
_MOST_BYTES: Final = 1 << 24

#: Where a child has the pipe by which it answers.
_ANSWER: Final = 3


def call_apart(work: Callable[[], object], seconds: float) -> Any:
    """Call `work` in a forked child; return what it has returned, by way of JSON: bytes are such.

    The child has no descriptors of this process's, and is killed when the time is over. Raises
    ChildProcessError, which says what `work` raised, or how the child ended; OSError if there can
    be none.
    """
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        # Other threads are not missed: the child does its work and ends.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            _answer(work, sending, seconds)
        finally:
            os._exit(1)
    os.close(sending)
    deadline = time.monotonic() + seconds
    answer: bytes | None = None
    try:
        answer = _read(receiving, deadline)
    finally:
        os.close(receiving)
        how = _end(child, deadline if answer is not None else 0)
    if answer is None:
        raise ChildProcessError(f"did not end within {seconds:.0f} seconds")
    try:
        is_result, value = json.loads(answer)
    except (ValueError, TypeError, RecursionError):
        raise ChildProcessError(how) from None
    if not is_result:
        raise ChildProcessError(value)
    return value


def _read(fd: int, deadline: float) -> bytes | None:
    """Read to the end; None if that does not come in time, or is too far."""
    content = bytearray()
    while len(content) <= _MOST_BYTES and _is_ready(fd, deadline):
        part = os.read(fd, 1 << 16)
        if not part:
            return bytes(content)
        content += part
    return None


def _is_ready(fd: int, deadline: float) -> bool:
    """Wait until there is something to read, or a pidfd's process has ended; False if not then."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _end(child: int, deadline: float) -> str:
    """Wait for a child until then, and kill it if it is held up, or stopped; say how it ended."""
    # Where this process ignores SIGCHLD, the kernel reaps it, and has nothing to say.
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        pidfd = os.pidfd_open(child)
        try:
            if not _is_ready(pidfd, deadline):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        finally:
            os.close(pidfd)
        if ended is not None and ended.si_code != os.CLD_EXITED:
            return f"killed by {signal.Signals(ended.si_status).name}"
        if ended is not None:
            return f"ended with code {ended.si_status}"
    return "ended without a word"


def _answer(work: Callable[[], object], sending: int, seconds: float) -> None:
    """Do the work, in the child, and say what came of it."""
    # Nobody is to be told of a death that says what it is to say.
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # Should whoever waits for it be killed first.
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
    os.dup2(sending, _ANSWER)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(_ANSWER):
        os.dup2(null, fd)
    os.closerange(_ANSWER + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    try:
        answer, result = b"[true, %b]", work()
    except BaseException as error:
        answer, result = b"[false, %b]", describe_error(error)
    # Not by `dump`, which makes one small piece after another, in Python.
    text = result if isinstance(result, bytes) else json.dumps(result).encode()
    with open(_ANSWER, "wb") as file:
        file.write(answer % text)
