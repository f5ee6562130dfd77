"""What the page of each kind shows runs as it stands, with what a reader would have around it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from documents import REPOSITORY, code_blocks

from probate import SchedulingPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate import ProcessManager

KINDS = sorted(path.parent.name for path in REPOSITORY.glob("plugins/*/README.md"))


@contextlib.contextmanager
def callbacks(folder: Path) -> Iterator[dict[str, Any]]:
    scratch = folder / "folder"
    scratch.mkdir()
    session = SimpleNamespace(close=lambda: None)
    yield {"session": session, "stack": contextlib.ExitStack(), "folder": scratch}
    assert scratch.exists()  # it was disowned


@contextlib.contextmanager
def files(folder: Path) -> Iterator[dict[str, Any]]:
    names: dict[str, Any] = {}
    yield names
    os.close(names["writer"])  # the reader was adopted
    assert (folder / "app.log").exists()


@contextlib.contextmanager
def mmap(folder: Path) -> Iterator[dict[str, Any]]:
    (folder / "table.bin").write_bytes(bytes(4096))
    yield {}


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[dict[str, Any]]:
    (folder / "worker").write_text("#!/bin/sh\nexec sleep 1000\n")
    (folder / "worker").chmod(0o755)
    names: dict[str, Any] = {}
    yield names
    names["child"].stdout.close()


@contextlib.contextmanager
def rings(folder: Path) -> Iterator[dict[str, Any]]:
    if platform.machine() != "x86_64":
        pytest.skip("rings are for x86-64")
    from probate_rings import ZeroCopyIpc

    (folder / "data").write_bytes(b"hello")
    there = ZeroCopyIpc()
    here, other = socket.socketpair()
    with here, other, open(folder / "data", "rb") as file:
        # What is sent at one end of it is received at the other.
        ends = SimpleNamespace(sendmsg=here.sendmsg, recvmsg=other.recvmsg)
        names: dict[str, Any] = {"connection": ends, "zerocopy": there, "file": file}
        yield names
        there.table.cleanup(1)
        for fd in names["fds"]:
            os.close(fd)


@contextlib.contextmanager
def scheduler(_folder: Path) -> Iterator[dict[str, Any]]:
    if os.geteuid() != 0:
        pytest.skip("needs root: only with CAP_SYS_NICE a niceness is put back")
    with subprocess.Popen(["sleep", "1000"]) as worker:
        try:
            yield {"worker": worker}
        finally:
            worker.kill()


@contextlib.contextmanager
def signals(_folder: Path) -> Iterator[dict[str, Any]]:
    called: list[int] = []
    yield {"on_term": lambda signum, _frame: called.append(signum)}
    assert called == [signal.SIGTERM] * 2


@contextlib.contextmanager
def tasks(_folder: Path) -> Iterator[dict[str, Any]]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        yield {
            "coroutine": lambda: asyncio.sleep(3600),
            "function": str,
            "argument": 1,
            "executor": executor,
        }


@contextlib.contextmanager
def nothing(_folder: Path) -> Iterator[dict[str, Any]]:
    yield {}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_page_shows_works(
    kind: str, manager: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line by line; and what it has left owned is given back by the owner's end."""
    [block] = code_blocks(REPOSITORY / "plugins" / kind / "README.md", "python")
    surroundings: Callable[[Path], Any] = globals().get(kind, nothing)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    async def run() -> None:
        owner, other = manager.create_process("owner"), manager.create_process("other")
        with surroundings(tmp_path) as names:
            names |= {
                "orchestrator": manager.orchestrator,
                "process": owner,
                "pid": owner.pid,
                "other": other.pid,
                "other_pid": other.pid,
                "contextlib": contextlib,
                "os": os,
                "shutil": shutil,
                "signal": signal,
                "socket": socket,
                "subprocess": subprocess,
                "SchedulingPolicy": SchedulingPolicy,
            }
            exec(compile(block, f"{kind}/README.md", "exec"), names)
            results = [
                await manager.terminate_process_async(each.pid, grace=20) for each in (other, owner)
            ]
        assert [error for each in results for error in each.errors] == []

    asyncio.run(run())
