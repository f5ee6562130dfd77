"""flock and open file description locks; the kernel's own table is the witness."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any

import pytest
from threads import in_thread

from probate import AlreadyOwnedError, NotOwnedError, ProcessTerminatedError
from probate_files import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_files import FileManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of a thousand bytes."""
    path = tmp_path / "locked"
    path.write_bytes(bytes(1000))
    return path


@pytest.fixture
def stranger(path: Path) -> Iterator[IO[bytes]]:
    """The same file, opened by somebody else."""
    with open(path, "r+b") as file:
        yield file


def locks_of(path: Path) -> list[str]:
    """What /proc/locks has of a file: class, type and bytes (proc(5)), oldest first."""
    inode = path.stat().st_ino
    found = []
    with open("/proc/locks") as file:
        for line in file:
            words = line.split()
            if words[1] != "->" and words[-3].endswith(f":{inode}"):
                found.append(" ".join([words[1], words[3], *words[-2:]]))
    return sorted(found)


def is_free(file: IO[bytes]) -> bool:
    """Whether somebody else could have the flock now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def test_a_lock_excludes_others_and_ends_with_its_owner(
    manager: ProcessManager, files: FileManager, path: Path, stranger: IO[bytes]
) -> None:
    """A lock is a resource of its own, on a file that may be another's."""
    holder = manager.create_process("holder")
    with open(path) as file:
        lock = files.lock(holder.pid, file)
        was_held = lock.is_held

        assert was_held
        assert locks_of(path) == ["FLOCK WRITE 0 EOF"]
        assert not is_free(stranger)

        result = holder.terminate()

        assert result.stats.by_type == {"files": 1}
        assert not lock.is_held
        assert locks_of(path) == []
        assert not file.closed


def test_locks_are_released_before_the_file_is_closed(
    process: Process, files: FileManager, path: Path
) -> None:
    """Newest first: flock, range and file all count, and none is found already gone."""
    file = files.open(process.pid, path, "r+b")
    files.lock(process.pid, file)
    files.lock_range(process.pid, file, 0, 10)
    file.write(b"data")

    result = process.terminate()

    assert result.stats.by_type == {"files": 3}
    assert locks_of(path) == []


def test_shared_locks_are_shared(manager: ProcessManager, files: FileManager, path: Path) -> None:
    """Two readers, then a writer that times out, and gets it when they are gone."""
    readers = [manager.create_process("reader") for _ in range(2)]
    writer = manager.create_process("writer")
    for reader in readers:
        files.lock(reader.pid, files.open(reader.pid, path), shared=True)
    file = files.open(writer.pid, path, "r+b")

    with pytest.raises(TimeoutError, match="held by somebody else"):
        files.lock(writer.pid, file, timeout=0)
    for reader in readers:
        reader.terminate()
    lock = files.lock(writer.pid, file, timeout=0)

    assert lock.is_held
    assert not lock.shared


def test_ranges_exclude_where_they_overlap(
    manager: ProcessManager, files: FileManager, path: Path
) -> None:
    """Between owners of one OS process, which lockf and F_SETLK would not notice."""
    a, b = manager.create_process("a"), manager.create_process("b")
    of_a, of_b = files.open(a.pid, path, "r+b"), files.open(b.pid, path, "r+b")
    files.lock_range(a.pid, of_a, 0, 100)
    tail = files.lock_range(a.pid, of_a, 500, 0)
    files.lock_range(b.pid, of_b, 100, 100)
    for start, length in ((50, 50), (600, 1), (200, 0)):
        with pytest.raises(TimeoutError):
            files.lock_range(b.pid, of_b, start, length, timeout=0)

    assert locks_of(path) == ["OFDLCK WRITE 0 99", "OFDLCK WRITE 100 199", "OFDLCK WRITE 500 EOF"]

    files.unlock(a.pid, tail)
    files.lock_range(b.pid, of_b, 200, 0, timeout=0)
    a.terminate()

    assert locks_of(path) == ["OFDLCK WRITE 100 EOF"]


def test_a_lock_survives_the_closing_of_other_descriptors(
    process: Process, files: FileManager, path: Path, stranger: IO[bytes]
) -> None:
    """POSIX locks vanish when any descriptor of the file is closed; these do not."""
    file = files.open(process.pid, path, "r+b")
    files.lock_range(process.pid, file, 0, 10)
    with open(path):
        pass
    files.close(process.pid, files.open(process.pid, path))

    assert locks_of(path) == ["OFDLCK WRITE 0 9"]


def test_other_programs_lockf_sees_a_range(
    process: Process, files: FileManager, path: Path
) -> None:
    """They conflict with the POSIX locks of other OS processes (fcntl(2))."""
    files.lock_range(process.pid, files.open(process.pid, path, "r+b"), 0, 10)
    script = f"""
import fcntl
file = open({str(path)!r}, "r+b")
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
except OSError:
    print("held")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.stdout, done.stderr) == ("held\n", "")


@pytest.mark.parametrize("how", ["flock", "range"])
def test_a_description_is_locked_once(
    manager: ProcessManager, files: FileManager, path: Path, how: str
) -> None:
    """The kernel would grant a duplicate what its description has; whose end would release it?"""
    a, b = manager.create_process("a"), manager.create_process("b")
    file = files.open(a.pid, path, "r+b")
    copy = files.dup(b.pid, file)

    def take(pid: int, thing: Any) -> FileLock:
        if how == "flock":
            return files.lock(pid, thing)
        return files.lock_range(pid, thing, 10, 10)

    lock = take(a.pid, file)

    with pytest.raises(AlreadyOwnedError, match="which duplicates share"):
        take(b.pid, copy)
    with pytest.raises(AlreadyOwnedError, match=f"process {a.pid}"):
        take(a.pid, file)

    b.terminate()

    assert lock.is_held
    if how == "range":
        files.lock_range(a.pid, file, 20, 10)

        assert locks_of(path) == ["OFDLCK WRITE 10 29"]

        files.unlock(a.pid, lock)

        assert locks_of(path) == ["OFDLCK WRITE 20 29"]


def test_unlocking_by_hand(
    manager: ProcessManager, files: FileManager, path: Path, stranger: IO[bytes]
) -> None:
    """By lock or by file, by its owner only; twice is once."""
    a, b = manager.create_process("a"), manager.create_process("b")
    file = files.open(a.pid, path, "r+b")
    lock = files.lock(a.pid, file)
    for thing in (lock, file):
        with pytest.raises(NotOwnedError):
            files.unlock(b.pid, thing)

    assert not is_free(stranger)

    files.unlock(a.pid, lock)
    files.unlock(a.pid, lock)

    assert is_free(stranger)

    files.lock(a.pid, file)
    files.lock_range(a.pid, file, 0, 1)
    files.unlock(a.pid, file.fileno())

    assert locks_of(path) == []
    assert files.table.usage(a.pid).count == 1
    with pytest.raises(NotOwnedError):
        files.unlock(a.pid, file)


def test_closing_a_file_by_hand_gives_back_its_locks(
    process: Process, files: FileManager, path: Path
) -> None:
    """Otherwise a server that locks and closes in a loop would own ever more of them."""
    for _ in range(3):
        file = files.open(process.pid, path, "r+b")
        files.lock(process.pid, file)
        files.lock_range(process.pid, file, 0, 10)
        files.close(process.pid, file)

    assert process.pid not in files.table
    assert locks_of(path) == []


@pytest.mark.parametrize("how", ["closed", "unlocked", "replaced"])
def test_a_lock_that_ended_directly_is_already_gone(
    process: Process, files: FileManager, path: Path, how: str
) -> None:
    """The file was closed, or unlocked natively, or its number means another, locked file."""
    fd = os.open(path, os.O_RDWR)
    files.lock(process.pid, fd)
    with open(path.with_name("other"), "w") as other:
        if how == "unlocked":
            fcntl.flock(fd, fcntl.LOCK_UN)
        elif how == "replaced":
            fcntl.flock(other, fcntl.LOCK_EX)
            os.dup2(other.fileno(), fd)
        else:
            os.close(fd)

        result = process.terminate()

        assert result.is_success
        assert result.stats.resources_freed == 0
        if how == "replaced":
            assert locks_of(path.with_name("other")) == ["FLOCK WRITE 0 EOF"]
    if how != "closed":
        os.close(fd)


def test_a_wait_ends_when_the_lock_is_free(
    manager: ProcessManager, files: FileManager, path: Path
) -> None:
    """Whoever waits without an end gets it at last."""
    a, b = manager.create_process("a"), manager.create_process("b")
    files.lock(a.pid, files.open(a.pid, path, "r+b"))
    waiting = files.open(b.pid, path, "r+b")
    thread, outcome = in_thread(lambda: files.lock(b.pid, waiting))
    a.terminate()
    thread.join(5)

    assert isinstance(outcome[0], FileLock)
    assert outcome[0].is_held


def test_a_wait_times_out(
    process: Process, files: FileManager, path: Path, stranger: IO[bytes]
) -> None:
    """After as many seconds as were given, and with nothing owned."""
    file = files.open(process.pid, path, "r+b")
    fcntl.flock(stranger, fcntl.LOCK_SH)
    started = time.monotonic()

    with pytest.raises(TimeoutError, match=r"after 0\.2 seconds: exclusive flock of"):
        files.lock(process.pid, file, timeout=0.2)

    assert 0.2 <= time.monotonic() - started < 5
    assert files.table.usage(process.pid).count == 1
    assert files.lock(process.pid, file, shared=True, timeout=0).is_held


@pytest.mark.parametrize("how", ["flock", "range"])
def test_a_wait_ends_with_its_owner(
    manager: ProcessManager, files: FileManager, path: Path, stranger: IO[bytes], how: str
) -> None:
    """accept/recv blocked, so cleanup hung: a waiting lock learns that its owner is terminated."""
    process = manager.create_process("waiting")
    fcntl.flock(stranger, fcntl.LOCK_EX)
    holder = manager.create_process("holder")
    files.lock_range(holder.pid, stranger, 0, 10)
    # Nobody's file, so that it is not its closing that ends the wait.
    with open(path, "r+b") as file:
        entered = threading.Event()

        def wait() -> FileLock:
            entered.set()
            if how == "flock":
                return files.lock(process.pid, file)
            return files.lock_range(process.pid, file, 0, 10)

        thread, outcome = in_thread(wait)
        entered.wait(5)
        result = process.terminate()
        thread.join(5)

        assert not thread.is_alive()
        assert isinstance(outcome[0], ProcessTerminatedError)
        assert result.is_success


def test_a_wait_ends_when_its_file_is_closed(
    process: Process, files: FileManager, path: Path, stranger: IO[bytes]
) -> None:
    """Its number may be another file's soon, which nobody wanted to lock."""
    fcntl.flock(stranger, fcntl.LOCK_EX)
    for _ in range(50):
        file = files.open(process.pid, path, "r+b")
        entered = threading.Event()

        def wait(file: IO[bytes] = file, entered: threading.Event = entered) -> FileLock:
            entered.set()
            return files.lock(process.pid, file)

        thread, outcome = in_thread(wait)
        entered.wait(5)
        file.close()
        thread.join(5)

        assert isinstance(outcome[0], ValueError)

    assert locks_of(path) == ["FLOCK WRITE 0 EOF"]


def test_one_at_a_time_among_threads(
    manager: ProcessManager, files: FileManager, path: Path
) -> None:
    """Owners that come, lock, and are terminated with the lock: never two at once."""
    inside = worst = 0
    failures: list[BaseException] = []

    def live() -> None:
        nonlocal inside, worst
        try:
            for _ in range(15):
                process = manager.create_process("brief")
                file = files.open(process.pid, path, "r+b")
                files.lock(process.pid, file, timeout=20)
                inside += 1
                worst = max(worst, inside)
                os.fstat(file.fileno())
                inside -= 1
                process.terminate()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=live) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)

    assert failures == []
    assert worst == 1
    assert locks_of(path) == []


def test_a_lock_changes_owners(manager: ProcessManager, files: FileManager, path: Path) -> None:
    """It is held through the first owner's end, and released at the second's."""
    first, second = manager.create_process("first"), manager.create_process("second")
    file = files.open(second.pid, path, "r+b")
    lock = files.lock(first.pid, file)
    first.transfer(lock, second)

    assert first.terminate().stats.resources_freed == 0
    assert lock.is_held

    assert second.terminate().stats.by_type == {"files": 2}
    assert locks_of(path) == []
