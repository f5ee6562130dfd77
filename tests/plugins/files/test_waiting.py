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

    from probate import ProcessManager
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


@pytest.mark.parametrize(
    ("make", "inline"),
    [
        (memory_file, {"quiesce", "cleanup"}),
        (lambda: os.memfd_create("memory"), {"quiesce", "cleanup"}),
        (lambda: open("/proc/self/stat"), {"quiesce"}),
        (lambda: tempfile.SpooledTemporaryFile(), {"quiesce"}),
        (lambda: os.eventfd(0), {"quiesce"}),
        (derived_file, set()),
    ],
    ids=["memory", "memfd", "read", "spooled", "eventfd", "derived"],
)
def test_what_can_wait_for_nobody_needs_no_watching(
    manager: ProcessManager, make: Callable[[], Any], inline: set[str]
) -> None:
    """What may, even if most unlikely, runs on a thread that can be left behind."""
    watcher = ThreadWatcher()
    manager.orchestrator.register(watcher)
    process = manager.create_process("owner")
    process.adopt(make())

    result = process.terminate()

    assert result.is_success
    assert result.stats.resources_freed == 1
    here = {hook for hook, thread in watcher.threads.items() if thread == threading.get_ident()}
    assert here == inline


def test_one_pipe_among_files_in_memory_has_all_watched(manager: ProcessManager) -> None:
    """Its reader may let it wait."""
    watcher = ThreadWatcher()
    manager.orchestrator.register(watcher)
    process = manager.create_process("owner")
    reader, writer = os.pipe()
    process.adopt(memory_file())
    process.adopt(open(writer, "w"))
    process.adopt(memory_file())

    result = process.terminate()

    assert result.stats.resources_freed == 3
    assert threading.get_ident() not in watcher.threads.values()
    os.close(reader)


def test_a_close_that_fails_among_many_is_told_of_once(
    manager: ProcessManager, files: FileManager, tmp_path: Path
) -> None:
    """It is gone all the same (close(2)), and the others are closed too."""
    process = manager.create_process("owner")
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
    manager: ProcessManager, files: FileManager, tmp_path: Path
) -> None:
    """One closed directly, one detached, one whose number is another's: the rest is unharmed."""
    process = manager.create_process("owner")
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
