"""What the kernel says of shared memory, and interpreters of their own that use it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.shared_memory import SharedMemory

_PRELUDE = """
import os, signal, sys
from multiprocessing.shared_memory import SharedMemory
from probate import ProcessManager, ResourceOrchestrator
from probate_memory import MemoryResource, UntrackedSharedMemory

names = set()


def noting(make):
    def note(shm, *arguments, **keywords):
        make(shm, *arguments, **keywords)
        names.add(shm.name)

    return note


for each in (SharedMemory, UntrackedSharedMemory):
    each.__init__ = noting(each.__init__)


def say(*words):
    print(*words, flush=True)


def wait():
    sys.stdin.readline()


orchestrator = ResourceOrchestrator().register(MemoryResource(), "memory")
builder = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0)
manager = builder.build()
memory = orchestrator["memory"].manager
process = manager.create_process("script")
pid = process.pid
"""


class Segment(NamedTuple):
    """A line of /proc/sysvipc/shm (proc(5))."""

    size: int
    creator: int
    attaches: int


def sysv_segments() -> dict[int, Segment]:
    """All SysV segments there are, by id."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    fields = [[int(field) for field in line.split()] for line in lines]
    return {each[1]: Segment(each[3], each[4], each[6]) for each in fields}


def own_sysv_segments() -> set[int]:
    """Ids of the SysV segments that this OS process has created."""
    return {key for key, each in sysv_segments().items() if each.creator == os.getpid()}


def shm_names() -> set[str]:
    """Names of all POSIX segments there are, whoever's (shm_overview(7))."""
    return {path.name for path in Path("/dev/shm").iterdir()}


def buffer_of(shm: SharedMemory) -> memoryview:
    """The bytes of an open segment."""
    assert shm.buf is not None
    return shm.buf


def descriptors_of(name: str) -> int:
    """How many descriptors of this process refer to a POSIX segment, unlinked or not."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(entry)
            found += target.removesuffix(" (deleted)") == f"/dev/shm/{name}"
    return found


def is_mapped(name: str) -> bool:
    """Whether this process maps a POSIX segment, unlinked or not (proc(5), maps)."""
    return f"/dev/shm/{name}" in Path("/proc/self/maps").read_text()


def run_script(
    source: str, *arguments: str, under: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, after a prelude that makes `memory`, `manager` and `pid`.

    `names` are those of all POSIX segments that it made or opened. `under` is a program that runs
    it, such as unshare(1).
    """
    command = [*under, *_command(source, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def script(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a script, likewise; killed at the end if it still runs."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        _command(source, arguments), stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """Wait for the next line that a script says."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    return line.strip()


def _command(source: str, arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-c", _PRELUDE + textwrap.dedent(source), *arguments]
