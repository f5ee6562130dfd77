"""Opening files and descriptors for processes, and giving them back; the kernel is the witness."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Any

import pytest
from files_kernel import is_open

from probate import (
    CleanupStats,
    KindLimits,
    NotOwnedError,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
    ResourceOrchestrator,
)
from probate_files import FileManager, FileResource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import Process, ProcessManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_the_kind_stands_between_sockets_and_ipc() -> None:
    """Priority 8, by entry point as by hand; the manager is the one that was given."""
    manager = FileManager()
    resource = FileResource(manager)
    discovered = ResourceOrchestrator().discover(only=["files"])

    assert resource.ordering().priority == 8
    assert resource.manager is manager
    assert isinstance(discovered["files"], FileResource)
    assert isinstance(discovered["files"].manager, FileManager)


def test_what_was_buffered_is_written_and_everything_is_closed(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Text, binary and unbuffered files, folders, duplicates and memory: one termination."""
    text = files.open(process.pid, tmp_path / "text", "w", encoding="utf-16-le")
    binary = files.open(process.pid, os.fsencode(tmp_path / "binary"), "xb")
    raw = files.open(process.pid, str(tmp_path / "raw"), "wb", buffering=0)
    fds = [
        files.open_fd(process.pid, tmp_path / "fd", os.O_WRONLY | os.O_CREAT, 0o640),
        files.open_directory(process.pid, tmp_path),
        files.dup(process.pid, text),
        files.memfd(process.pid, "scratch"),
    ]
    text.write("grüße")
    binary.write(b"binary")
    raw.write(b"raw")
    os.write(fds[0], b"fd")

    result = process.terminate()

    assert result.is_success
    assert result.stats.by_type == {"files": 7}
    assert [file.closed for file in (text, binary, raw)] == [True] * 3
    assert not any(is_open(fd) for fd in fds)
    assert (tmp_path / "text").read_text("utf-16-le") == "grüße"
    assert {name: (tmp_path / name).read_bytes() for name in ("binary", "raw", "fd")} == {
        "binary": b"binary",
        "raw": b"raw",
        "fd": b"fd",
    }
    assert (tmp_path / "fd").stat().st_mode & 0o777 == 0o640 & ~_umask()


def test_descriptors_are_not_inherited_by_programs(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Each has FD_CLOEXEC set (PEP 446)."""
    fd = files.open_fd(process.pid, tmp_path / "fd", os.O_RDWR | os.O_CREAT)
    folder = files.open_directory(process.pid, tmp_path)
    made = [fd, folder, files.dup(process.pid, fd), files.memfd(process.pid)]

    assert [fcntl.fcntl(each, fcntl.F_GETFD) for each in made] == [fcntl.FD_CLOEXEC] * 4


def test_a_file_opened_for_reading_and_writing_keeps_its_position(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """A flush at the end writes where the file object stands, whatever was read ahead."""
    path = tmp_path / "both"
    path.write_bytes(b"0123456789")
    file = files.open(process.pid, path, "r+b")

    assert file.read(2) == b"01"

    file.write(b"XY")
    process.terminate()

    assert path.read_bytes() == b"01XY456789"


def test_the_current_process_is_the_owner_if_no_pid_is_given(
    manager: ProcessManager, files: FileManager, tmp_path: Path
) -> None:
    """Within `with manager.process(...)` the pid may be left out."""
    path = tmp_path / "file"
    with manager.process("current") as process:
        file = files.open(path, "w")
        fd = files.open_fd(path)
        copy = files.dup(fd)
        files.lock_range(copy, 0, 10, shared=True)

        assert manager.orchestrator.usage(process.pid)["files"].count == 4

        files.close(fd)
        files.close(file)

    assert file.closed
    assert not is_open(copy)


def test_closing_gives_back_and_is_idempotent(
    manager: ProcessManager, process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Closing twice is closing once; flushing writes what is buffered."""
    file = files.open(process.pid, tmp_path / "file", "w")
    fd = files.dup(process.pid, file)
    file.write("flushed")
    files.flush(process.pid, file)

    assert (tmp_path / "file").read_text() == "flushed"

    file.write(" and closed")
    for _ in range(2):
        files.close(process.pid, file)
        files.close(process.pid, fd)

    assert (tmp_path / "file").read_text() == "flushed and closed"
    assert not manager.orchestrator.has_resources(process.pid)
    assert not is_open(fd)


def test_one_owner_cannot_close_anothers_file(
    manager: ProcessManager, files: FileManager, tmp_path: Path
) -> None:
    """B closed A's descriptor, its number went to C, A's cleanup closed C's: owner-checked."""
    a, b = manager.create_process("a"), manager.create_process("b")
    file = files.open(a.pid, tmp_path / "file", "w")
    fd = files.dup(a.pid, file)

    for call in (files.close, files.flush):
        with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
            call(b.pid, file)
    with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
        files.close(b.pid, fd)

    assert manager.terminate_process(b.pid).stats.resources_freed == 0
    assert not file.closed
    assert is_open(fd)


def test_what_nobody_owns_is_not_closed(process: Process, files: FileManager) -> None:
    """An open file of the host's is none of a process's."""
    with open(os.devnull) as file:
        for thing in (file, file.fileno()):
            with pytest.raises(NotOwnedError, match="nobody here does"):
                files.close(process.pid, thing)

        assert not file.closed


def test_a_file_changes_owners(manager: ProcessManager, files: FileManager, tmp_path: Path) -> None:
    """The first owner's end leaves it open, the second's closes it."""
    first, second = manager.create_process("first"), manager.create_process("second")
    file = files.open(first.pid, tmp_path / "file", "w")
    fd = files.memfd(first.pid)
    for thing in (file, fd):
        first.transfer(thing, second)
    file.write("kept")

    assert first.terminate().stats.resources_freed == 0
    assert is_open(fd)

    assert second.terminate().stats.by_type == {"files": 2}
    assert (tmp_path / "file").read_text() == "kept"


def test_usage_tells_path_mode_number_and_inode(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Enough to find each thing with other tools."""
    file = files.open(process.pid, tmp_path / "file", "w")
    fd = files.dup(process.pid, file)
    files.lock(process.pid, file, shared=True)
    files.lock_range(process.pid, fd, 10, 5)
    files.mkfifo(process.pid, tmp_path / "fifo")
    inode = (tmp_path / "file").stat().st_ino

    usage = files.table.usage(process.pid)
    descriptions = [info.description for info in usage.resources]

    assert (usage.kind, usage.count, usage.nbytes) == ("files", 5, 0)
    for part in (str(tmp_path / "file"), f"fd {file.fileno()}", "mode wb", f"inode {inode}"):
        assert part in descriptions[0]
    for part in (f"fd {fd}", str(tmp_path / "file"), "mode w", f"inode {inode}"):
        assert part in descriptions[1]
    assert descriptions[2].startswith(f"shared flock of '{tmp_path / 'file'}'")
    assert "exclusive lock" in descriptions[3]
    assert "bytes 10 to 14" in descriptions[3]
    assert descriptions[4].startswith(f"FIFO '{tmp_path / 'fifo'}'")


@pytest.mark.parametrize(
    "call",
    [
        lambda files, pid, path: files.open(pid, path, "w"),
        lambda files, pid, path: files.open_fd(pid, path, os.O_CREAT),
        lambda files, pid, path: files.mkfifo(pid, path),
        lambda files, pid, path: files.temporary_file(pid, directory=path.parent),
        lambda files, pid, path: files.temporary_directory(pid, directory=path.parent),
    ],
)
def test_a_limit_refuses_before_anything_is_opened(
    manager: ProcessManager, files: FileManager, tmp_path: Path, call: Callable[..., Any]
) -> None:
    """No path appears for what the limit refuses."""
    limits = ResourceLimits(by_kind={"files": KindLimits(max_count=1)})
    process = manager.create_process("limited", limits=limits)
    fd = files.memfd(process.pid)

    with pytest.raises(ResourceLimitExceeded, match="at most 1"):
        call(files, process.pid, tmp_path / "new")

    assert list(tmp_path.iterdir()) == []

    files.close(process.pid, fd)
    call(files, process.pid, tmp_path / "new")

    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["open", "open_fd", "open_directory"])
def test_the_kernels_errors_come_through(
    process: Process, files: FileManager, tmp_path: Path, name: str
) -> None:
    """As the built-in open raises them; nothing is owned."""
    with pytest.raises(FileNotFoundError, match="missing"):
        getattr(files, name)(process.pid, tmp_path / "missing")

    assert process.pid not in files.table


def test_a_terminated_owner_gets_nothing(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Late registration for a terminated pid leaked for ever: it is refused."""
    process.terminate()

    with pytest.raises(ProcessTerminatedError):
        files.open(process.pid, tmp_path / "file", "w")

    assert list(tmp_path.iterdir()) == []


def test_nothing_to_free(manager: ProcessManager) -> None:
    """A process without files has an empty account."""
    stats = manager.terminate_process(manager.create_process("idle").pid).stats

    assert stats.model_copy(update={"duration_seconds": 0}) == CleanupStats()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
