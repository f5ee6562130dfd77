"""Terminations: sync and async, raced, repeated, forked; and the driver for all kinds' tests."""

# ruff: noqa: SIM115  whoever adopts a file here closes it

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
from children import exit_code_of_fork
from files_driver import drivers
from files_kernel import fill, is_open, read_all
from threads import in_thread

from probate import CleanupStats, NotOwnedError, ProcessTerminatedError
from probate.testing.witness import KernelView

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_files import FileManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

DRIVERS = [
    "file",
    "descriptor",
    "temporary file",
    "temporary folder",
    "lock",
    "adopted file",
    "adopted descriptor",
]


def test_async_termination_settles_everything(
    manager: ProcessManager, files: FileManager, tmp_path: Path
) -> None:
    """Awaited on a loop, whose own tasks go on meanwhile, with a reader that takes its time."""

    async def scenario() -> None:
        process = manager.create_process("async")
        file = files.open(process.pid, tmp_path / "file", "w")
        file.write("kept")
        reader, writer = os.pipe()
        filled = fill(writer)
        stream = os.fdopen(writer, "w")
        process.adopt(stream)
        stream.write("the last words")
        loop = asyncio.get_running_loop()
        # The reader is a task of the very loop that awaits the termination.
        got = bytearray()
        ended = loop.create_future()

        def read() -> None:
            part = os.read(reader, 4096)
            got.extend(part)
            if not part:
                loop.remove_reader(reader)
                ended.set_result(None)

        loop.add_reader(reader, read)

        result = await process.terminate_async(grace=10)
        await asyncio.wait_for(ended, 5)
        os.close(reader)

        assert result.is_success
        assert result.stats.by_type == {"files": 2}
        assert len(got) == filled + len("the last words")
        assert (tmp_path / "file").read_text() == "kept"

    asyncio.run(scenario())


def test_the_sync_form_on_a_loops_thread_does_not_wait_for_the_grace(
    manager: ProcessManager, files: FileManager
) -> None:
    """It could wait for its own loop for ever; what is stuck is reported."""

    async def scenario() -> None:
        process = manager.create_process("sync")
        reader, writer = os.pipe()
        fill(writer)
        stream = os.fdopen(writer, "w")
        process.adopt(stream)
        stream.write("lost")

        result = process.terminate(grace=30)
        os.close(reader)

        assert result.stats.duration_seconds < 5
        assert len(result.errors) == 1

    asyncio.run(scenario())


def test_a_second_cleanup_finds_nothing(
    manager: ProcessManager, process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Idempotent: what was released is not released again."""
    orchestrator = manager.orchestrator
    files.open(process.pid, tmp_path / "file", "w")
    files.temporary_directory(process.pid)

    assert orchestrator.cleanup_process(process.pid).stats.resources_freed == 2

    stats = manager.orchestrator["files"].cleanup(process.pid)

    assert stats.model_copy(update={"duration_seconds": 0}) == CleanupStats()


def test_acquisitions_racing_a_termination_leave_nothing(
    manager: ProcessManager, files: FileManager, tmp_path: Path
) -> None:
    """Each either belongs to the account, or was refused and has left nothing behind."""
    path = tmp_path / "shared"
    path.touch()
    makers: list[Callable[[int], object]] = [
        lambda pid: files.open(pid, path, "r+"),
        lambda pid: files.open_fd(pid, path),
        files.memfd,
        lambda pid: files.temporary_file(pid, directory=tmp_path),
        lambda pid: files.temporary_directory(pid, directory=tmp_path),
    ]
    for _ in range(60):
        process = manager.create_process("raced")
        made = [0] * len(makers)
        start = threading.Barrier(len(makers) + 1)

        def acquire(
            number: int,
            pid: int = process.pid,
            start: threading.Barrier = start,
            made: list[int] = made,
        ) -> None:
            start.wait(5)
            while True:
                makers[number](pid)
                made[number] += 1

        running = [in_thread(partial(acquire, number)) for number in range(len(makers))]
        start.wait(5)
        result = process.terminate()
        for thread, _ in running:
            thread.join(10)

        assert {type(outcome[0]) for _, outcome in running} == {ProcessTerminatedError}
        assert result.is_success, result.errors
        assert result.stats.resources_freed >= sum(made)
        assert process.pid not in files.table

    assert list(tmp_path.iterdir()) == [path]


def test_closing_by_hand_racing_a_termination_closes_once(
    manager: ProcessManager, files: FileManager
) -> None:
    """Whoever is quicker does it; numbers that others have by then are not touched."""
    for _ in range(100):
        process = manager.create_process("raced")
        fds = [files.memfd(process.pid) for _ in range(5)]
        closed: list[int] = []

        def close(pid: int = process.pid, fds: list[int] = fds, closed: list[int] = closed) -> None:
            for fd in fds:
                files.close(pid, fd)
                closed.append(fd)

        thread, outcome = in_thread(close)
        freed = process.terminate().stats.resources_freed
        bystanders = [os.memfd_create("bystander") for _ in range(5)]
        thread.join(5)

        # A number that was another's by then is not owned.
        assert outcome == [None] or isinstance(outcome[0], (ProcessTerminatedError, NotOwnedError))
        assert freed <= 5
        for fd in bystanders:
            os.fstat(fd)
            os.close(fd)
        assert not any(is_open(fd) for fd in fds)


# From 3.12 on, os.fork() warns where there are several threads: this test is about that.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_owns_nothing(
    manager: ProcessManager, files: FileManager, tmp_path: Path
) -> None:
    """It closes, flushes, unlinks and unlocks nothing of its parent's, and lives its own life."""
    process = manager.create_process("parent")
    file = files.open(process.pid, tmp_path / "file", "w")
    file.write("once")
    fd = files.memfd(process.pid)
    folder = files.temporary_directory(process.pid, directory=tmp_path)
    fifo = files.mkfifo(process.pid, folder / "fifo")
    lock = files.lock(process.pid, file)

    def child() -> None:
        assert not manager.orchestrator.has_resources(process.pid)
        assert manager.orchestrator["files"].cleanup(process.pid).resources_freed == 0
        gc.collect()
        assert is_open(fd)
        assert fifo.exists()
        assert lock.is_held
        own = manager.create_process("child's")
        assert files.adopt(own.pid, fd) is not None
        files.lock(own.pid, files.temporary_file(own.pid, directory=tmp_path))
        assert own.terminate().stats.resources_freed == 3

    assert exit_code_of_fork(child) == 0
    assert lock.is_held
    assert (tmp_path / "file").read_text() == ""

    result = process.terminate()

    assert result.stats.by_type == {"files": 5}
    assert (tmp_path / "file").read_text() == "once"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_each_driver_makes_gives_back_and_closes(
    manager: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drivers for tests over all kinds: each way in and out leaves nothing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = drivers(manager.orchestrator)

    assert list(found) == DRIVERS

    gc.collect()
    view = KernelView.take()
    for driver in found.values():
        process = manager.create_process("driven")
        driver.give_back(process.pid, driver.make(process.pid))

        assert not manager.orchestrator.has_resources(process.pid)

        driver.make(process.pid)
        if driver.close is not None:
            driver.close(driver.make(process.pid))
        result = process.terminate()

        assert result.is_success
        assert result.stats.by_type == {"files": 1}
        with pytest.raises(ProcessTerminatedError):
            driver.make(process.pid)
    gc.collect()

    assert view.changes() == []
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_between_two_owners_ends_in_order(manager: ProcessManager) -> None:
    """The writer's last words arrive before its end does."""
    first, second = manager.create_process("writer"), manager.create_process("reader")
    reader, writer = os.pipe()
    source = open(writer, "w")
    first.adopt(source)
    second.adopt(reader)
    source.write("the last words")
    first.terminate()

    assert read_all(reader) == b"the last words"
    assert second.terminate().stats.resources_freed == 1
