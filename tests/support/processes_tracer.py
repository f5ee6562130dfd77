"""Another program that traces one of ours (ptrace(2)), as strace and gdb do with -p."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Attaches without stopping, and says so; when it reads a line, waits until the other has exited.
_CODE: Final = """
import ctypes, os, sys
PTRACE_CONT, PTRACE_SEIZE, PTRACE_O_TRACEEXIT, WALL = 7, 0x4206, 0x40, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
os_pid, keeps = int(sys.argv[1]), sys.argv[2] == "keeps"
flags = ctypes.c_void_p(PTRACE_O_TRACEEXIT if keeps else 0)
done = libc.ptrace(PTRACE_SEIZE, os_pid, None, flags)
print(os.strerror(ctypes.get_errno()) if done else "attached", flush=True)
for line in sys.stdin:
    while os.WIFSTOPPED(status := os.waitpid(os_pid, WALL)[1]):
        # As it would be without: it gets the signal that has stopped it.
        libc.ptrace(PTRACE_CONT, os_pid, None, ctypes.c_void_p(os.WSTOPSIG(status)))
    print("exited", flush=True)
"""


class Tracer:
    """A tracer that waits for whom it traces when it is told to."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self._popen = popen
        self.os_pid = popen.pid

    def wait(self) -> None:
        """Have it wait until the other has exited, whose status is its parent's from then on."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write("\n")
        self._popen.stdin.flush()
        self._popen.stdout.readline()

    def go(self) -> None:
        """Let it end, which detaches it from all."""
        self._popen.kill()
        self._popen.wait()


@contextlib.contextmanager
def tracing(os_pid: int | None, *, keeps: bool = False) -> Iterator[Tracer]:
    """Trace a process; with `keeps`, also SIGKILL does not end it before the tracer lets it go."""
    argv = [sys.executable, "-SEc", _CODE, str(os_pid), "keeps" if keeps else ""]
    pipe = subprocess.PIPE
    # Not marked: it is not of the test's making, as far as the kernel's view of it goes.
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env={}) as popen:
        try:
            assert popen.stdout is not None
            if (said := popen.stdout.readline().strip()) != "attached":
                pytest.skip(f"nobody may be traced here: {said}")
            yield Tracer(popen)
        finally:
            popen.kill()
