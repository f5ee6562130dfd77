"""A tree of real workers, killed from outside while it works: settled without anybody calling."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate import OsProcess
from probate.cli.demo.host import DemoError

if TYPE_CHECKING:
    from probate import Process
    from probate.cli.demo.host import Host
    from probate.cli.demo.report import EndedProcess

#: The kinds that this takes.
KINDS: Final = ("processes", "sockets", "memory")

#: Seconds that the workers get to begin, and their death to be noticed.
_PATIENCE: Final = 20.0

_SIZE: Final = 1 << 16

#: The leader, and a grandchild that has left its session and its parent. Both work, that is
#: count in shared memory; the grandchild also listens. It tells its pid and port.
_WORKER: Final = """
import mmap, os, socket, sys, time

name = sys.stdin.readline().strip()
if not name:
    sys.exit()
with open("/dev/shm/" + name, "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)

def work(place):
    while True:
        memory[place] = (memory[place] + 1) % 256
        time.sleep(0.001)

if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    listener = socket.create_server(("127.0.0.1", 0))
    print(os.getpid(), listener.getsockname()[1], flush=True)
    work(1)
os.wait()
work(0)
"""


@final
class _Tree(NamedTuple):
    """What is known of the workers while they live."""

    process: Process
    #: The leader and the grandchild, pinned, so that no other can be taken for them.
    leader: OsProcess
    grandchild: OsProcess
    port: int
    #: Where the shared memory is to be found.
    shared: Path


def run(host: Host) -> EndedProcess:
    """Have a tree of workers killed from outside, and wait until it is settled.

    Raises DemoError if they do not work, OSError for want of what they need.
    """
    tree = _start(host)
    process = tree.process
    with tree.leader, tree.grandchild:
        _wait_for_work(tree)
        host.note_held(process, _scenes(tree))
        began = time.perf_counter()
        _kill_from_outside(tree.leader)
        host.manager.wait(process.pid, _PATIENCE)
        seconds = time.perf_counter() - began
        host.differences += _differences(tree)
    end = (
        f"is killed by another program: noticed and settled unasked, {seconds:.2f} s after that "
        f"program was started; exit status {process.returncode}"
    )
    return host.report(process, "SIGKILL", end)


def _scenes(tree: _Tree) -> dict[str, list[str]]:
    grandchild, port = tree.grandchild.os_pid, tree.port
    return {
        "processes": [
            f"OS process {tree.leader.os_pid}, at work in shared memory",
            f"its double-forked grandchild {grandchild}, in a session of its own, at work too",
            f"a listener of the grandchild's, at port {port}",
        ],
        "memory": [f"{tree.shared}, {_SIZE} bytes, held by the host for them"],
        "sockets": ["a socket, held by the host for them"],
    }


def _start(host: Host) -> _Tree:
    command = [sys.executable, "-I", "-S", "-c", _WORKER]
    pipe = subprocess.PIPE
    process = host.manager.spawn(command, "workers", stdin=pipe, stdout=pipe)
    with contextlib.ExitStack() as undo:
        for each in (process.stdin, process.stdout):
            if each is not None:
                undo.callback(each.close)
        undo.callback(process.terminate)
        tree = _set_to_work(host, process)
        undo.pop_all()
    return tree


def _set_to_work(host: Host, process: Process) -> _Tree:
    if process.stdin is None or process.stdout is None or process.os_pid is None:
        raise DemoError(f"spawned without pipes: {process!r}")
    leader = OsProcess.open(process.os_pid)
    # Owned by the process, so that the end of the workers is the end of both.
    memory = host.plugin("memory").manager.create_shared_memory(process.pid, size=_SIZE)
    host.plugin("sockets").manager.bind_udp(process.pid, ("127.0.0.1", 0))
    name: str = memory.name
    process.stdin.write(f"{name}\n".encode())
    process.stdin.flush()
    with process.stdout:
        words = process.stdout.readline().split()
    if len(words) != 2:
        raise DemoError("the workers did not begin")
    grandchild, port = (int(word) for word in words)
    shared = Path("/dev/shm") / name.lstrip("/")  # noqa: S108  where the kernel shows it
    return _Tree(process, leader, OsProcess.open(grandchild), port, shared)


def _wait_for_work(tree: _Tree) -> None:
    """Wait until both have counted; and see that the port is served."""
    over = time.monotonic() + _PATIENCE
    while 0 in tree.shared.read_bytes()[:2]:
        if time.monotonic() > over:
            raise DemoError("the workers do not work")
        time.sleep(0.001)
    socket.create_connection(("127.0.0.1", tree.port), _PATIENCE).close()


def _kill_from_outside(leader: OsProcess) -> None:
    script = f"import os; os.kill({leader.os_pid}, {signal.SIGKILL:d})"
    # Its own interpreter and a number: nothing that anybody could slip in. In a session of its own,
    # so that Ctrl-C is for the demo alone.
    command = [sys.executable, "-I", "-S", "-c", script]
    subprocess.run(command, check=True, start_new_session=True)  # noqa: S603


def _differences(tree: _Tree) -> list[str]:
    """What the kernel still shows of the workers, a line each."""
    lines = [
        f"OS process {each.os_pid} is still there"
        for each in (tree.leader, tree.grandchild)
        if each.is_there()
    ]
    if tree.shared.exists():
        lines.append(f"left behind: {tree.shared}")
    try:
        socket.create_server(("127.0.0.1", tree.port)).close()
    except OSError as error:
        lines.append(f"port {tree.port} cannot be bound: {os.strerror(error.errno or 0)}")
    return lines
