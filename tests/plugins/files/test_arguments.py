"""Wrong arguments: refused before anything is acquired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_files import FileManager


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda files, pid, path: files.open(pid, 1), TypeError),
        (lambda files, pid, path: files.open(pid, ""), ValueError),
        (lambda files, pid, path: files.open(pid, "a\0b"), ValueError),
        (lambda files, pid, path: files.open(pid, path, 3), TypeError),
        (lambda files, pid, path: files.open(pid, path, "rw"), ValueError),
        (lambda files, pid, path: files.open(pid, path, "wq"), ValueError),
        (lambda files, pid, path: files.open(pid, path, "wbt"), ValueError),
        (lambda files, pid, path: files.open(pid, path, "wb", encoding="utf-8"), ValueError),
        (lambda files, pid, path: files.open(pid, path, "w", buffering=0), ValueError),
        (lambda files, pid, path: files.open(pid, path, "w", buffering="big"), TypeError),
        (lambda files, pid, path: files.open(pid, path, "w", encoding="no such"), LookupError),
        (lambda files, pid, path: files.open(pid, path, "w", errors="no such"), LookupError),
        (lambda files, pid, path: files.open(pid, path, "w", newline="\v"), ValueError),
        (lambda files, pid, path: files.open_fd(pid, path, "r"), TypeError),
        (lambda files, pid, path: files.open_fd(pid, path, True), TypeError),
        (lambda files, pid, path: files.open_fd(pid, path, -1), ValueError),
        (lambda files, pid, path: files.open_fd(pid, path, 0, 0o10000), ValueError),
        (lambda files, pid, path: files.open_directory(pid, None), TypeError),
        (lambda files, pid, path: files.dup(pid, "file"), TypeError),
        (lambda files, pid, path: files.dup(pid, True), TypeError),
        (lambda files, pid, path: files.dup(pid, 123456), ValueError),
        (lambda files, pid, path: files.memfd(pid, b"name"), TypeError),
        (lambda files, pid, path: files.memfd(pid, "name", -1), ValueError),
        (lambda files, pid, path: files.mkfifo(pid, path, "rw"), TypeError),
        (lambda files, pid, path: files.mkfifo(pid, path, -1), ValueError),
        (lambda files, pid, path: files.temporary_file(pid, "zb"), ValueError),
        (lambda files, pid, path: files.temporary_file(pid, suffix="a/b"), ValueError),
        (lambda files, pid, path: files.temporary_directory(pid, prefix=b"p"), TypeError),
        (lambda files, pid, path: files.temporary_directory(pid, directory=3), TypeError),
        (lambda files, pid, path: files.lock(pid, path), TypeError),
        (lambda files, pid, path: files.lock(pid, 123456), ValueError),
        (lambda files, pid, path: files.lock(pid, 0, timeout="soon"), TypeError),
        (lambda files, pid, path: files.lock(pid, 0, timeout=-1), ValueError),
        (lambda files, pid, path: files.lock(pid, 0, timeout=float("nan")), ValueError),
        (lambda files, pid, path: files.lock_range(pid, 0, "a", 1), TypeError),
        (lambda files, pid, path: files.lock_range(pid, 0, -1, 1), ValueError),
        (lambda files, pid, path: files.lock_range(pid, 0, 1, 1 << 63), ValueError),
        (lambda files, pid, path: files.lock_range(pid, 0, 1 << 62, 1 << 63), ValueError),
        (lambda files, pid, path: files.unlock(pid, "lock"), TypeError),
        (lambda files, pid, path: files.flush(pid, 3), TypeError),
        (lambda files, pid, path: files.close(pid, str(path)), TypeError),
        (lambda files, pid, path: files.close(pid, True), TypeError),
        (lambda files, pid, path: files.adopt_fd(pid, "3"), TypeError),
        (lambda files, pid, path: files.adopt_fd(pid, True), TypeError),
        (lambda files, pid, path: files.adopt_fd(pid, 123456), ValueError),
        (lambda files, pid, path: files.adopt_fd(pid, -1), ValueError),
        (lambda files, pid, path: files.adopt_fd(pid, 1 << 80), ValueError),
        (lambda files, pid, path: files.adopt_fd(pid, 0), ValueError),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_acquired(
    manager: ProcessManager,
    process: Process,
    files: FileManager,
    tmp_path: Path,
    call: Callable[..., Any],
    error: type[Exception],
) -> None:
    """A clear error, nothing owned, and no file that was emptied on the way."""
    path = tmp_path / "precious"
    path.write_text("content")

    with pytest.raises(error):
        call(files, process.pid, path)

    assert not manager.orchestrator.has_resources(process.pid)
    assert path.read_text() == "content"
