"""Which files are settled on the terminating thread itself, and which on one that is watched."""

# ruff: noqa: SIM115  whoever adopts a file here closes it

from __future__ import annotations

import errno
import io
import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from files_kernel import is_open

from probate import Outcome, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_files import FileManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


class ThreadWatcher:
    """An observer that notes on which thread each hook runs."""

    def __init__(self) -> None:
        self.threads: dict[str, int] = {}

    @hookimpl(wrapper=True)
    def quiesce(self, pid: int) -> Generator[None, Any, Any]:
        self.threads["quiesce"] = threading.get_ident()
        return (yield)

    @hookimpl(wrapper=True)
    def cleanup(self, pid: int) -> Generator[None, Any, Any]:
        self.threads["cleanup"] = threading.get_ident()
        return (yield)


class Derived(io.TextIOWrapper):
    """Whatever it may do."""


def memory_file() -> io.TextIOWrapper:
    """A file object on a file in memory, with something unwritten."""
    file = open(os.memfd_create("memory"), "w")
    file.write("unwritten")
    return file


def derived_file() -> io.TextIOWrapper:
    """The same, derived from the standard library's."""
    return Derived(open(os.memfd_create("memory"), "wb"))


def file_in_a_pipe() -> io.TextIOWrapper:
    """What a reader, who is gone already, may let wait."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


@pytest.mark.parametrize(
    ("things", "is_inline"),
    [
        ([memory_file, lambda: os.memfd_create("memory"), memory_file], True),
        ([lambda: open("/proc/self/stat")], False),
        ([tempfile.SpooledTemporaryFile], False),
        ([lambda: os.eventfd(0)], False),
        ([derived_file], False),
        ([memory_file, file_in_a_pipe, memory_file], False),
    ],
    ids=["memory", "read", "spooled", "eventfd", "derived", "a pipe among them"],
)
def test_what_can_wait_for_nobody_needs_no_watching(
    manager: ProcessManager, process: Process, things: list[Callable[[], Any]], is_inline: bool
) -> None:
    """What may, even if most unlikely, runs on a thread that can be left behind."""
    watcher = ThreadWatcher()
    manager.orchestrator.register(watcher)
    for make in things:
        process.adopt(make())

    result = process.terminate()

    assert result.is_success
    assert result.stats.resources_freed == len(things)
    assert watcher.threads["quiesce"] == threading.get_ident()
    assert (watcher.threads["cleanup"] == threading.get_ident()) is is_inline


def test_a_close_that_fails_among_many_is_told_of_once(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """It is gone all the same (close(2)), and the others are closed too."""
    opened = [files.open(process.pid, tmp_path / str(number), "w") for number in range(3)]
    numbers = [file.fileno() for file in opened]
    raw = cast("Any", opened[1]).buffer.raw

    def close() -> None:
        io.FileIO.close(raw)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    vars(raw)["close"] = close
    opened[1].write("written")

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "Input/output error" in result.errors[0].message
    assert result.stats.resources_freed == 2
    assert not any(map(is_open, numbers))
    assert (tmp_path / "1").read_text() == "written"


def test_files_are_closed_together_whatever_became_of_one(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """One closed directly, one detached, one whose number is another's: the rest is unharmed."""
    opened = [files.open(process.pid, tmp_path / str(number), "w") for number in range(9)]
    for file in opened:
        file.write("written")
    opened[2].close()
    beneath = cast("Any", opened[4]).detach()
    stranger = os.memfd_create("stranger")
    taken = opened[6].fileno()
    os.dup2(stranger, taken)

    result = process.terminate()

    assert result.stats.resources_freed == 7
    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "7 buffered bytes are lost" in result.errors[0].message
    assert beneath.closed
    assert os.path.samestat(os.fstat(taken), os.fstat(stranger))
    assert os.fstat(stranger).st_size == 0
    texts = [(tmp_path / str(number)).read_text() for number in range(9)]
    assert texts == ["written"] * 6 + [""] + ["written"] * 2
    for fd in (stranger, taken):
        os.close(fd)
