"""FIFOs: unlinked with their owner, with nobody left waiting."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from files_kernel import wait_until_blocked_in
from threads import in_thread

from probate import ProcessTerminatedError

if TYPE_CHECKING:
    from pathlib import Path

    from probate import Process
    from probate_files import FileManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


def test_a_fifo_carries_data_and_goes_with_its_owner(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Made with the permissions asked for; its ends are files of their own."""
    path = files.mkfifo(process.pid, tmp_path / "fifo", 0o640)
    thread, outcome = in_thread(lambda: files.open(process.pid, path, "w"))
    reader = files.open(process.pid, path, "rb", buffering=0)
    thread.join(5)
    writer = outcome[0]
    assert isinstance(writer, io.TextIOWrapper)
    writer.write("data")
    files.close(process.pid, writer)

    assert stat.S_ISFIFO(path.stat().st_mode)
    assert path.stat().st_mode & 0o777 == 0o640
    assert reader.read() == b"data"

    result = process.terminate()

    assert result.stats.by_type == {"files": 2}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "is_moved"),
    [(os.O_RDONLY, False), (os.O_WRONLY, False), (os.O_RDONLY, True), (os.O_WRONLY, True)],
)
def test_whoever_waits_for_the_other_side_gets_through(
    process: Process, files: FileManager, tmp_path: Path, flags: int, is_moved: bool
) -> None:
    """Leave no one waiting: reader and writer return from open(2), wherever the FIFO is by now."""
    path = files.mkfifo(process.pid, tmp_path / "fifo")
    thread, outcome = in_thread(lambda: os.open(path, flags))
    wait_until_blocked_in(thread, "openat")
    if is_moved:
        path.rename(tmp_path / "moved")

    result = process.terminate()
    thread.join(5)

    assert not thread.is_alive()
    assert result.is_success
    fd = outcome[0]
    assert isinstance(fd, int)
    if flags == os.O_RDONLY:
        assert os.read(fd, 1) == b""
    else:
        with pytest.raises(BrokenPipeError):
            os.write(fd, b"x")
    os.close(fd)


def test_an_open_of_the_owners_own_ends_with_it(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """It learns that its owner was terminated, and has nothing open."""
    path = files.mkfifo(process.pid, tmp_path / "fifo")
    thread, outcome = in_thread(lambda: files.open(process.pid, path))
    wait_until_blocked_in(thread, "openat")

    process.terminate()
    thread.join(5)

    assert isinstance(outcome[0], ProcessTerminatedError)


def test_a_program_that_waits_is_let_through(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Other OS processes as well; they see end-of-file."""
    path = files.mkfifo(process.pid, tmp_path / "fifo")
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "print('up', flush=True)\nprint(open(" + repr(str(path)) + ").read() == '')",
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        _wait_until_it_opens(child.pid)

        assert process.terminate().is_success
        assert child.stdout.read() == "True\n"
        assert child.wait(5) == 0


def test_the_path_of_a_fifo_is_left_to_its_successor(
    process: Process, files: FileManager, tmp_path: Path
) -> None:
    """Device and inode are compared, while the inode is held."""
    path = files.mkfifo(process.pid, tmp_path / "fifo")
    path.unlink()
    os.mkfifo(path)

    result = process.terminate()

    assert result.is_success
    assert result.stats.resources_freed == 0
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_what_is_in_the_way_stays(process: Process, files: FileManager, tmp_path: Path) -> None:
    """A FIFO replaces nothing."""
    (tmp_path / "fifo").write_text("precious")

    with pytest.raises(FileExistsError):
        files.mkfifo(process.pid, tmp_path / "fifo")

    assert (tmp_path / "fifo").read_text() == "precious"
    assert process.pid not in files.table


def test_removing_by_hand(process: Process, files: FileManager, tmp_path: Path) -> None:
    """As the owner's end would."""
    files.remove(process.pid, files.mkfifo(process.pid, tmp_path / "fifo"))

    assert list(tmp_path.iterdir()) == []
    assert process.pid not in files.table


def _wait_until_it_opens(pid: int) -> None:
    import threading

    pause = threading.Event()
    for _ in range(5000):
        with open(f"/proc/{pid}/syscall") as file:
            if file.read().split()[0] == "257":
                return
        pause.wait(0.001)
    pytest.fail("the child never opened the FIFO")
