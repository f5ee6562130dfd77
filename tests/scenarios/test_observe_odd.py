"""OS processes that hold odd things, or live elsewhere: what is seen, and what it does to them."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from children import exit_code_of_fork

from probate import Ordering, OwnershipTable, ResourceKind, ResourceOrchestrator
from probate.models import ResourceRecord
from probate.system import file_maps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psutil

NOBODY = 65534

#: Ends with what it still finds, once it has been looked at.
FIFO_OF_NO_FOLDER = """
import os, subprocess, sys
from mount_namespace import enter_mount_namespace, mount_tmpfs
enter_mount_namespace()
mount_tmpfs(sys.argv[1], "size=64k")
os.mkfifo(f"{sys.argv[1]}/fifo")
fifo = os.open(f"{sys.argv[1]}/fifo", os.O_RDWR | os.O_NONBLOCK)
os.write(fifo, b"precious")
subprocess.run(["umount", "--lazy", sys.argv[1]], check=True)
print(flush=True)
sys.stdin.readline()
sys.exit(os.read(fifo, 100) != b"precious")
"""

#: Sees its file by another name than all others do.
IN_A_JAIL = """
import os, sys
file = open(f"{sys.argv[1]}/inside", "w")
os.chroot(sys.argv[1])
print(flush=True)
sys.stdin.readline()
"""

IN_ANOTHER_NETWORK = """
import socket, sys
unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
unix.bind(b"\\0elsewhere")
listener = socket.create_server(("", 4711))
print(flush=True)
sys.stdin.readline()
"""


def descriptions(records: object, kind: str) -> list[str]:
    return [each.description for each in records if each.kind == kind]  # type: ignore[attr-defined]  # records


@contextmanager
def running(*command: str | Path) -> Iterator[int]:
    """The pid of a program that prints a line when it is ready, and reads one at its end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as popen:
        assert popen.stdout
        try:
            assert popen.stdout.readline() == b"\n"

            yield popen.pid
        finally:
            popen.communicate(b"\n", timeout=30)

    assert popen.returncode == 0


def test_names_of_sockets_may_have_any_bytes(orchestrator: ResourceOrchestrator) -> None:
    """Also line breaks, which anybody may put in the kernel's table by an abstract name."""
    name = f"odd-{os.getpid()}\r\na b c\n\t[bold]"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        unix.bind(f"\0{name}")
        seen = descriptions(orchestrator.observe(os.getpid()), "sockets")

    assert f"UNIX dgram @{name}" in seen


def test_a_socket_that_no_table_has_is_seen(orchestrator: ResourceOrchestrator) -> None:
    """Of other families, or neither bound nor connected."""
    with socket.socket() as unbound:
        inode = os.fstat(unbound.fileno()).st_ino
        seen = descriptions(orchestrator.observe(os.getpid()), "sockets")

    assert f"socket [{inode}]" in seen


@pytest.mark.needs_root(reason="for a network namespace")
def test_sockets_of_another_network_are_seen(orchestrator: ResourceOrchestrator) -> None:
    with running("unshare", "--net", sys.executable, "-c", IN_ANOTHER_NETWORK) as os_pid:
        seen = descriptions(orchestrator.observe(os_pid), "sockets")

    assert sorted(seen) == ["INET stream listener 0.0.0.0:4711", "UNIX dgram @elsewhere"]


@pytest.mark.needs_root(reason="to change the root")
def test_files_of_a_jail_are_seen(tmp_path: Path, orchestrator: ResourceOrchestrator) -> None:
    """By the path that they have here."""
    with running(sys.executable, "-c", IN_A_JAIL, tmp_path) as os_pid:
        seen = descriptions(orchestrator.observe(os_pid), "files")

    assert f"file {tmp_path}/inside" in seen


@pytest.mark.needs_root(reason="for a mount namespace")
def test_nothing_is_taken_from_a_fifo(tmp_path: Path, orchestrator: ResourceOrchestrator) -> None:
    """Whatever its name looks like: message queues seem to be in the root folder, too."""
    with running(sys.executable, "-c", FIFO_OF_NO_FOLDER, tmp_path) as os_pid:
        seen = descriptions(orchestrator.observe(os_pid), "files")

    assert "FIFO /fifo" in seen


def test_a_queue_without_a_name_is_no_file(orchestrator: ResourceOrchestrator) -> None:
    posix_ipc = pytest.importorskip("posix_ipc")
    name = f"/odd-{os.getpid()}"
    try:
        queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX)
    except OSError as error:
        pytest.skip(f"no message queues here: {error}")
    queue.unlink()
    records = orchestrator.observe(os.getpid())
    queue.close()

    assert f"POSIX queue {name} (deleted)" in descriptions(records, "ipc")
    assert f"file {name} (deleted)" not in descriptions(records, "files")


def test_shared_memory_that_is_not_mapped_is_seen(orchestrator: ResourceOrchestrator) -> None:
    """Once, if it is mapped as well."""
    libc = ctypes.CDLL(None)
    name = f"/odd-{os.getpid()}"
    number = libc.shm_open(name.encode(), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.ftruncate(number, 4096)
        opened = descriptions(orchestrator.observe(os.getpid()), "memory")
        with mmap.mmap(number, 4096):
            mapped = descriptions(orchestrator.observe(os.getpid()), "memory")
    finally:
        os.close(number)
        libc.shm_unlink(name.encode())

    assert opened.count(f"shared memory /dev/shm{name}") == 1
    assert mapped.count(f"shared memory /dev/shm{name}") == 1


@pytest.mark.parametrize("odd", ["\r7f00-8f00 rw-s 0 0:1 1 /dev/shm/forged", "\n", "\r", "\x1c"])
def test_names_of_mapped_files_may_have_any_bytes(tmp_path: Path, odd: str) -> None:
    path = tmp_path / odd.replace("/", "_")
    path.write_bytes(b"x")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 1):
        paths = [each.path for each in file_maps(os.getpid())]

    assert str(path) in paths


@pytest.mark.needs_root(reason="to become another user")
@pytest.mark.parametrize("kind", ["files", "processes", "rings", "sockets"])
def test_no_kind_takes_a_refusal_for_nothing(kind: str) -> None:
    """Alone, too: nothing would be told of another user's process, as if it held nothing."""
    host = os.getpid()
    orchestrator = ResourceOrchestrator().discover(only=[kind])

    def as_nobody() -> None:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with pytest.raises(PermissionError, match=f"not permitted to look into OS process {host}"):
            orchestrator.observe(host)

    assert exit_code_of_fork(as_nobody) == 0


def test_one_that_ends_meanwhile_is_not_told_of_in_part() -> None:
    """Nor a zombie: what the kernel has taken back by then was told of as if it were all."""
    table: OwnershipTable[object] = OwnershipTable("leases", lambda _: None)

    def observe(process: psutil.Process) -> list[ResourceRecord]:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return [ResourceRecord.held("leases", "lease 7", process.pid)]

    orchestrator = ResourceOrchestrator().register(
        ResourceKind(table, Ordering(priority=1), observe=observe)
    )
    with subprocess.Popen(["sleep", "1000"]) as popen:
        for _ in ("meanwhile", "before"):
            with pytest.raises(ProcessLookupError, match=f"OS process {popen.pid} has ended"):
                orchestrator.observe(popen.pid)
