"""Who else uses a file, a number or a lock: what docs/guarantees.md says, and no other test."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from files_kernel import is_open, wait_until_blocked_in
from threads import in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_files import FileManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture(scope="module")
def h5py() -> Any:
    """With numpy, whose threads are no leak."""
    return pytest.importorskip("h5py")


@pytest.fixture
def pipe() -> tuple[int, int]:
    """Its two ends, the reading one first."""
    return os.pipe()


@pytest.mark.parametrize("opened", ["file", "number"])
def test_a_duplicate_of_another_owner_goes_on(
    manager: ProcessManager, files: FileManager, tmp_path: Path, opened: str
) -> None:
    """twisted#2004: what both of them share is not touched; only the one number is closed."""
    first, second = manager.create_process("first"), manager.create_process("second")
    path = tmp_path / "shared"
    if opened == "file":
        file = files.open(first.pid, path, "wb", buffering=0)
        file.write(b"first ")
        twin = files.dup(second.pid, file)
    else:
        number = files.open_fd(first.pid, path, os.O_WRONLY | os.O_CREAT)
        os.write(number, b"first ")
        twin = files.dup(second.pid, number)

    assert first.terminate().stats.by_type == {"files": 1}

    os.write(twin, b"second")
    assert path.read_bytes() == b"first second"


def test_what_a_child_has_inherited_goes_on_there(process: Process, tmp_path: Path) -> None:
    """amphp/byte-stream#105: the child writes on, at the position that both of them had."""
    path = tmp_path / "log"
    file = open(path, "w", buffering=1)  # noqa: SIM115  its owner's end closes it
    process.adopt(file)
    file.write("parent\n")
    script = "import sys; sys.stdin.readline(); print('child')"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=file
    ) as child:
        result = process.terminate()
        child.communicate(b"\n", timeout=10)

    assert result.stats.by_type == {"files": 1}
    assert path.read_text() == "parent\nchild\n"


def test_a_number_that_a_thread_reads_is_closed(process: Process, pipe: tuple[int, int]) -> None:
    """close(2): the thread is not woken; it reads what comes, and ends with the writers."""
    reader, writer = pipe
    process.adopt(reader)
    thread, outcome = in_thread(lambda: os.read(reader, 100))
    wait_until_blocked_in(thread, "read")

    result = process.terminate()
    was_open = is_open(reader)
    os.write(writer, b"late")
    os.close(writer)
    thread.join(5)

    assert result.stats.by_type == {"files": 1}
    assert not was_open
    assert outcome == [b"late"]


def test_a_lock_that_others_share_ends_with_its_owner(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """flock(2): it belongs to the open file description, for which nobody else holds it."""
    file = files.open(process.pid, tmp_path / "locked", "w")
    files.lock(process.pid, file)
    twin = os.dup(file.fileno())
    other = os.open(tmp_path / "locked", os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    assert process.terminate().stats.by_type == {"files": 2}

    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert is_open(twin)
    os.close(twin)
    os.close(other)


def test_databases_and_files_of_libraries_closed_directly_are_already_gone(
    process: Process, tmp_path: Path, h5py: Any
) -> None:
    """Neither counted nor complained of."""
    filelock = pytest.importorskip("filelock")
    connection = sqlite3.connect(tmp_path / "database")
    dataset = h5py.File(tmp_path / "data.h5", "w")
    lock = filelock.FileLock(tmp_path / "lock")
    lock.acquire()
    for each in (connection, dataset, lock):
        process.adopt(each)
    connection.close()
    dataset.close()
    lock.release()

    result = process.terminate()

    assert result.is_success
    assert not result.has_freed_resources
