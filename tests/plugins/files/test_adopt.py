"""Descriptors, file objects and temporary things that were made elsewhere."""

# ruff: noqa: SIM115  whoever adopts a file here closes it

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from files_kernel import is_open

from probate import (
    AlreadyOwnedError,
    ProcessTerminatedError,
    ResourceOrchestrator,
    UnadoptableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import Process, ProcessManager
    from probate_files import FileManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_both_ends_of_a_pipe_are_adopted_and_closed(process: Process) -> None:
    """An int that is an open descriptor is this kind's."""
    ends = os.pipe()
    for end in ends:
        process.adopt(end)

    assert process.terminate().stats.by_type == {"files": 2}
    assert not any(is_open(end) for end in ends)


def test_the_ends_of_a_pipe_may_have_different_owners(manager: ProcessManager) -> None:
    """When the writer's owner ends, the reader sees end-of-file."""
    first, second = manager.create_process("reader"), manager.create_process("writer")
    reader, writer = os.pipe()
    first.adopt(reader)
    second.adopt(writer)
    os.write(writer, b"data")
    second.terminate()

    assert os.read(reader, 10) == b"data"
    assert os.read(reader, 10) == b""

    assert first.terminate().stats.resources_freed == 1


def test_adopt_fd_gives_the_id(process: Process, files: FileManager) -> None:
    """As the orchestrator's adopt does."""
    fd = os.memfd_create("adopted")
    resource_id = files.adopt_fd(process.pid, fd)

    assert [info.id for info in files.table.usage(process.pid).resources] == [resource_id]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: open(path, "w"),
        lambda path: open(path, "wb"),
        lambda path: open(path, "wb", buffering=0),
        lambda path: open(path, "w+"),
        lambda path: open(os.open(path, os.O_RDWR | os.O_CREAT), "r+b"),
        lambda path: io.FileIO(path, "w"),
        lambda path: Path(path).open("w"),
        lambda path: tempfile.TemporaryFile(),
        lambda path: tempfile.NamedTemporaryFile("w"),
        lambda path: tempfile.NamedTemporaryFile(delete=False, dir=path.parent),
        lambda path: tempfile.SpooledTemporaryFile(),
        lambda path: tempfile.SpooledTemporaryFile(mode="w"),
    ],
)
def test_file_objects_are_adopted_and_closed(
    process: Process, tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    """Whatever their layers; without a warning when they are collected."""
    file = make(tmp_path / "file")
    process.adopt(file)

    result = process.terminate()

    assert result.is_success
    assert result.stats.by_type == {"files": 1}
    assert file.closed


@pytest.mark.parametrize("is_rolled", [False, True])
def test_a_spooled_file_is_closed_in_memory_or_on_disk(process: Process, is_rolled: bool) -> None:
    """It is not written to disk just to be adopted."""
    file = tempfile.SpooledTemporaryFile(max_size=10)
    process.adopt(file)
    file.write(b"x" * (100 if is_rolled else 5))

    assert vars(file)["_rolled"] is is_rolled

    result = process.terminate()

    assert result.stats.by_type == {"files": 1}
    assert file.closed


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_named_temporary_file_keeps_its_word(
    process: Process, tmp_path: Path, is_deleted: bool
) -> None:
    """Its path goes if it was to go, and what was buffered in it is written if it was to stay."""
    file = tempfile.NamedTemporaryFile("w", dir=tmp_path, delete=is_deleted)
    process.adopt(file)
    file.write("kept")
    process.terminate()

    assert Path(file.name).exists() is not is_deleted
    if not is_deleted:
        assert Path(file.name).read_text() == "kept"


def test_a_temporary_directory_object_is_taken_over(process: Process, tmp_path: Path) -> None:
    """Its tree goes with the owner, and its finaliser has nothing left to do or to warn of."""
    folder = tempfile.TemporaryDirectory(dir=tmp_path)
    process.adopt(folder)
    (Path(folder.name) / "deep").mkdir()
    (Path(folder.name) / "deep" / "file").touch()

    result = process.terminate()
    # A successor, which the finaliser must not take for its own.
    Path(folder.name).mkdir()

    assert result.stats.by_type == {"files": 1}
    name = folder.name
    del folder
    assert Path(name).is_dir()


def test_a_temporary_directory_cleaned_directly_is_already_gone(process: Process) -> None:
    """It may be cleaned by anybody."""
    folder = tempfile.TemporaryDirectory()
    process.adopt(folder)
    folder.cleanup()

    result = process.terminate()

    assert result.is_success
    assert result.stats.resources_freed == 0


def test_a_pipe_of_a_child_process_is_adopted(process: Process) -> None:
    """A Popen's stdin is a file object like any other; its child sees end-of-file."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        process.adopt(child.stdin)
        child.stdin.write(b"hello")
        process.terminate()

        assert child.stdout.read() == b"hello"
        assert child.wait(5) == 0


def test_a_thing_has_one_owner(manager: ProcessManager) -> None:
    """Adopted twice, by the same process or another, it would be released twice: refused."""
    first, second = manager.create_process("first"), manager.create_process("second")
    file = open(os.devnull)
    folder = tempfile.TemporaryDirectory()
    fd = os.memfd_create("adopted")
    for thing in (file, folder, fd):
        first.adopt(thing)
        for process in (first, second):
            with pytest.raises(AlreadyOwnedError, match=f"owned by process {first.pid}"):
                process.adopt(thing)

    assert first.terminate().stats.resources_freed == 3


def test_a_refused_adoption_leaves_the_thing_as_it_was(manager: ProcessManager) -> None:
    """The caller still holds it, and somebody else may adopt it."""
    dead, alive = manager.create_process("dead"), manager.create_process("alive")
    dead.terminate()
    fd = os.memfd_create("adopted")
    with pytest.raises(ProcessTerminatedError):
        dead.adopt(fd)
    alive.adopt(fd)

    assert alive.terminate().stats.resources_freed == 1


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_standard_descriptors_are_refused(process: Process, files: FileManager, fd: int) -> None:
    """They are the host's; the error says so, and the way out."""
    with pytest.raises(UnadoptableError) as caught:
        process.adopt(fd)
    with pytest.raises(ValueError, match=r"host's standard \w+ and never one process's: dup"):
        files.adopt_fd(process.pid, fd)
    with open(fd, closefd=False) as file, pytest.raises(UnadoptableError):
        process.adopt(file)

    assert "standard" in repr(caught.value.__cause__)
    assert process.terminate().stats.resources_freed == 0


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr", "__stdout__"])
def test_standard_streams_are_refused_wherever_they_go(process: Process, name: str) -> None:
    """Redirected as well, as here by pytest."""
    with pytest.raises(UnadoptableError):
        process.adopt(getattr(sys, name))


@pytest.mark.parametrize("fd", [-1, 123456, 1 << 80])
def test_an_int_that_is_no_descriptor_is_refused(manager: ProcessManager, fd: int) -> None:
    """The error tells that it is not open, and what to say if it is a pid."""
    with pytest.raises(
        UnadoptableError, match=r"no open descriptor: .*psutil\.Process\(pid\)"
    ) as caught:
        manager.create_process("closed").adopt(fd)

    assert "no open descriptor" in repr(caught.value.__cause__)


def test_closed_files_are_not_adopted(process: Process) -> None:
    """Nothing to own; the error tells why."""
    file = open(os.devnull)
    spooled = tempfile.SpooledTemporaryFile()
    detached = open(os.devnull, "w")
    raw = detached.detach()
    for each in (file, spooled, raw):
        each.close()
    for each in (file, spooled, raw, detached):
        with pytest.raises(UnadoptableError) as caught:
            process.adopt(each)
        assert isinstance(caught.value.__cause__, ExceptionGroup)


def test_what_belongs_to_other_kinds_is_left_to_them(
    manager: ProcessManager, files: FileManager
) -> None:
    """Sockets and their files, maps, tasks, connections, children, and what has no descriptor."""
    pid = manager.create_process("other kinds").pid
    ours, theirs = socket.socketpair()
    connection, peer = Pipe()
    loop = asyncio.new_event_loop()
    others: list[object] = [
        ours,
        ours.makefile("rw"),
        ours.makefile("rb"),
        ours.makefile("wb", buffering=0),
        mmap.mmap(-1, mmap.PAGESIZE),
        connection,
        loop,
        loop.create_future(),
        concurrent.futures.Future(),
        threading.Lock(),
        io.BytesIO(b"memory"),
        io.StringIO("memory"),
        True,
        signal.SIGTERM,
        3.0,
        "3",
        b"/dev/null",
        Path("/dev/null"),
        None,
        object(),
        type,
    ]

    assert [files.adopt(pid, thing) for thing in others] == [None] * len(others)

    for thing in others[1:6]:
        thing.close()  # type: ignore[attr-defined]  # those have one
    for each in (ours, theirs, peer, loop):
        each.close()


def test_among_all_kinds_each_thing_finds_its_own() -> None:
    """With everything installed, files come to this kind, whoever is asked first."""
    orchestrator = ResourceOrchestrator().discover()
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        things = [reader, open(writer, "w"), open(Path(folder) / "file", "w")]
        for thing in things:
            orchestrator.adopt(7, thing)
        result = orchestrator.cleanup_process(7)

    assert result.is_success
    assert result.stats.by_type == {"files": 3}
