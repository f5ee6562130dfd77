"""A host that makes things by name, says which, and waits to be killed: a program of its own."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from probate import ProcessManager, ResourceOrchestrator
from probate.cli.lack import Lack, is_lack, lack_of, limited_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import Process

    Witnesses = list[list[Any]]


#: Where Linux keeps what has a POSIX name (shm_overview(7), sem_overview(7)).
_SHARED: Final = "/dev/shm"  # noqa: S108  looked at only


def main() -> None:
    """Make things of these kinds, with a journal in this folder; say all in a line of JSON."""
    folder, *kinds = sys.argv[1:]
    orchestrator = ResourceOrchestrator().discover(only=kinds)
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    manager = builder.with_journal(f"{folder}/state").build()
    process = manager.create_process("doomed", key="doomed")
    made: Witnesses = []
    lacks: list[tuple[str, Lack]] = []
    for kind in kinds:
        try:
            made += [
                [kind, *each] for each in _MAKES[kind](orchestrator[kind].manager, process, folder)
            ]
        except Exception as error:
            if not is_lack(error):
                raise
            lacks.append((kind, lack_of(error)))
    print(json.dumps([made, lacks]), flush=True)  # noqa: T201  its parent reads it
    # Until it is killed; or its parent is, and has no more use for it.
    sys.stdin.read()


def _memory(memory: Any, process: Process, _: str) -> Witnesses:
    shared = memory.create_shared_memory(process.pid, size=4096)
    return [
        ["path", f"{_SHARED}/{shared.name}"],
        ["shm", memory.create_segment(process.pid, 4096).id],
    ]


def _ipc(ipc: Any, process: Process, _: str) -> Witnesses:
    semaphore = ipc.create_posix_semaphore(process.pid)
    found: Witnesses = [
        ["msg", ipc.create_sysv_queue(process.pid).id],
        ["sem", ipc.create_sysv_semaphore(process.pid).id],
        ["path", f"{_SHARED}/sem.{semaphore.name.lstrip('/')}"],
    ]
    return found


def _sockets(sockets: Any, process: Process, folder: str) -> Witnesses:
    path = f"{folder}/{os.getpid()}.sock"
    with limited_path():
        sockets.listen_unix(process.pid, path)
    return [["path", path]]


def _files(files: Any, process: Process, folder: str) -> Witnesses:
    path = f"{folder}/{os.getpid()}.fifo"
    files.mkfifo(process.pid, path)
    return [["path", path], ["path", str(files.temporary_directory(process.pid))]]


def _processes(processes: Any, process: Process, _: str) -> Witnesses:
    child = processes.spawn(process.pid, ["sleep", "1000"], cwd="/")
    return [["process", child.os_pid]]


_MAKES: Final[dict[str, Callable[[Any, Process, str], Witnesses]]] = {
    "processes": _processes,
    "sockets": _sockets,
    "files": _files,
    "ipc": _ipc,
    "memory": _memory,
}

#: The kinds that this takes, as far as they are installed.
KINDS: Final = tuple(_MAKES)
