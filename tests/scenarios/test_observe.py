"""What any live OS process holds, as all kinds see it from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from children import exit_code_of_fork

from probate import Ordering, OwnershipTable, ResourceKind, ResourceOrchestrator
from probate.models import ResourceRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

PROBATE = Path(sys.executable).with_name("probate")
NOBODY = 65534

#: Knows nothing of Probate; holds one of each, says which, and gives all back when it is told to.
HOLDER = """
import json, mmap, os, socket, subprocess, sys, tempfile
from multiprocessing import shared_memory
import posix_ipc, sysv_ipc
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
unix.bind(f"\\0probate-observe-{os.getpid()}")
reading, writing = os.pipe()
file = tempfile.NamedTemporaryFile()
file.write(b"12345")
file.flush()
deleted = tempfile.TemporaryFile()
mapped = mmap.mmap(file.fileno(), 5)
anonymous = mmap.mmap(-1, 8192)
segment = shared_memory.SharedMemory(create=True, size=4096)
sysv = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=4096)
semaphore = posix_ipc.Semaphore(f"/observe-{os.getpid()}", posix_ipc.O_CREX)
try:
    queue = posix_ipc.MessageQueue(f"/observe-{os.getpid()}", posix_ipc.O_CREX)
except OSError:
    queue = None
child = subprocess.Popen(["sleep", "1000"])
port, own = listener.getsockname()[1], client.getsockname()[1]
print(json.dumps({
    "processes": [f"OS process {child.pid} sleep 1000"],
    "mmap": [f"map of {file.name}, to be written to",
             "map of /dev/zero (deleted), to be written to"],
    "sockets": [f"INET stream listener 127.0.0.1:{port}",
                f"INET stream 127.0.0.1:{own} to 127.0.0.1:{port}",
                f"UNIX dgram @probate-observe-{os.getpid()}"],
    "files": [f"file {file.name}"],
    "ipc": [f"pipe [{os.fstat(reading).st_ino}]", f"POSIX semaphore {semaphore.name}"]
           + ([f"POSIX queue {queue.name}"] if queue else []),
    "memory": [f"shared memory /dev/shm/{segment.name}", f"SysV shared memory {sysv.id}"],
}), flush=True)
sys.stdin.readline()
child.kill()
for each in (segment, semaphore, queue):
    if each is not None:
        each.unlink()
sysv.remove()
"""


@contextmanager
def holder() -> Iterator[tuple[int, dict[str, list[str]]]]:
    """The pid of one, and what it says that it holds."""
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdin
        assert popen.stdout
        try:
            yield popen.pid, json.loads(popen.stdout.readline())
        finally:
            popen.communicate(b"\n", timeout=30)

    assert popen.returncode == 0


def by_kind(records: list[ResourceRecord]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in records:
        found.setdefault(record.kind, []).append(record.description)
    return found


def test_what_a_program_holds_is_seen_from_outside(orchestrator: ResourceOrchestrator) -> None:
    """Whatever it is written in: each kind knows its own, and no kind another's."""
    with holder() as (os_pid, held):
        records = orchestrator.observe(os_pid)

    assert {(each.os_pid, each.evidence) for each in records} == {(os_pid, "held")}
    seen = by_kind(records)
    for kind, wanted in held.items():
        assert set(wanted) <= set(seen[kind]), kind
    assert list(seen) == [kind for kind in orchestrator if kind in seen]
    numbers = [each.identity["number"] for each in records if "number" in each.identity]
    assert len(set(numbers)) == len(numbers)


def test_bytes_are_those_of_what_is_held(orchestrator: ResourceOrchestrator) -> None:
    with holder() as (os_pid, held):
        nbytes = {each.description: each.nbytes for each in orchestrator.observe(os_pid)}

    assert nbytes[held["files"][0]] == 5
    assert nbytes[held["mmap"][1]] == 8192
    assert [nbytes[each] for each in held["memory"]] == [4096, 4096]


def test_a_ring_is_seen(orchestrator: ResourceOrchestrator) -> None:
    """Of this process, whose event loops may have others."""
    rings = orchestrator["rings"].iouring

    def count() -> int:
        return len(by_kind(orchestrator.observe(os.getpid())).get("rings", ()))

    before = count()
    try:
        ring = rings.create_ring(1, 8)
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")

    # Each of its maps has a number, too.
    assert count() > before

    rings.close(1, ring)

    assert count() == before


def test_one_that_is_gone_holds_nothing_that_could_be_told(
    orchestrator: ResourceOrchestrator,
) -> None:
    with subprocess.Popen(["true"]) as popen:
        popen.wait()

    with pytest.raises(ProcessLookupError, match=f"there is no OS process {popen.pid}"):
        orchestrator.observe(popen.pid)
    with pytest.raises(TypeError, match="a pid must be an int"):
        orchestrator.observe("1")  # type: ignore[arg-type]  # a mistake


@pytest.mark.needs_root(reason="to become another user")
def test_one_of_another_user_may_not_be_looked_into(orchestrator: ResourceOrchestrator) -> None:
    """Part of it would pass for all."""
    host = os.getpid()
    orchestrator.observe(host)

    def as_nobody() -> None:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with pytest.raises(PermissionError, match=f"not permitted to look into OS process {host}"):
            orchestrator.observe(host)

    assert exit_code_of_fork(as_nobody) == 0


def test_a_kind_of_others_takes_part() -> None:
    """By its hook; what it raises is raised, since part of the answer would pass for all."""
    table: OwnershipTable[object] = OwnershipTable("leases", lambda _: None)

    def observe(process: psutil.Process) -> list[ResourceRecord]:
        return [ResourceRecord.held("leases", "lease 7", process.pid, lease=7)]

    def fail(process: psutil.Process) -> list[ResourceRecord]:
        raise LookupError("the lease server is away")

    kind = ResourceKind(table, Ordering(priority=1), observe=observe)
    orchestrator = ResourceOrchestrator().register(kind)
    [record] = orchestrator.observe(os.getpid())

    assert record.identity == {"lease": 7}

    other: OwnershipTable[object] = OwnershipTable("locks", lambda _: None)
    orchestrator.register(ResourceKind(other, Ordering(priority=2), observe=fail))

    with pytest.raises(LookupError, match="away"):
        orchestrator.observe(os.getpid())


def test_the_command_line_lists_it() -> None:
    """As a table, or as JSON; a pid that there is not is one line."""
    with holder() as (os_pid, held):
        table = probate("ps", "--held", str(os_pid)).stdout
        records = json.loads(probate("ps", "--held", str(os_pid), "--json").stdout)
    gone = probate("ps", "--held", str(os_pid))

    assert f"sockets    {held['sockets'][0]}" in table
    assert held["memory"][0] in {each["description"] for each in records}
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == f"probate: there is no OS process {os_pid}\n"


def probate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROBATE, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
