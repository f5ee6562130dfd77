"""Locks, files and databases of libraries: adopted by what they can do, ended as they end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
from files_kernel import is_open
from threads import in_thread

from probate import AlreadyOwnedError, Outcome, UnadoptableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_files import FileManager

# Before any test: it starts threads, and catches signals.
with contextlib.suppress(ImportError):
    importlib.import_module("h5py")

pytestmark = pytest.mark.usefixtures("nothing_remains")


def is_locked(path: Path) -> bool:
    """Whether anybody holds a lock of a file (flock(2)): another description is refused."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class PlainLock:
    """A lock as several libraries have them: by `acquired`, and released as often as acquired."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    @property
    def acquired(self) -> bool:
        """Whether it is held."""
        return self.count > 0

    def acquire(self) -> None:
        """Take it."""
        if not self.count:
            self.fd = os.open(self.path, os.O_CREAT | os.O_RDWR)
            fcntl.flock(self.fd, fcntl.LOCK_EX)
        self.count += 1

    def release(self) -> None:
        """Give it back."""
        self.count -= 1
        if not self.count:
            os.close(self.fd)


def library_lock(name: str, path: Path) -> Any:
    """A lock of a library."""
    if name == "plain":
        return PlainLock(path)
    module = pytest.importorskip(name.partition(" ")[0])
    if name == "filelock of any thread":
        return module.FileLock(path, thread_local=False)
    return module.FileLock(path) if name == "filelock" else module.Lock(path, mode="w")


LOCKS = ["plain", "filelock", "filelock of any thread", "portalocker"]


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_of_a_library_is_released(
    manager: ProcessManager, process: Process, tmp_path: Path, name: str, is_held: bool
) -> None:
    """Held once or more at its owner's end, it is free after that, and can be taken again."""
    path = tmp_path / "lock"
    lock = library_lock(name, path)
    if is_held:
        for _ in range(1 if name == "portalocker" else 2):
            lock.acquire()
    process.adopt(lock)
    with pytest.raises(AlreadyOwnedError):
        manager.create_process("another").adopt(lock)

    result = process.terminate()

    assert (result.is_success, result.stats.resources_freed) == (True, int(is_held))
    assert not is_locked(path)

    lock.acquire()
    assert is_locked(path)
    lock.release()


def test_what_was_written_to_a_locked_file_is_in_it_or_reported(
    process: Process, tmp_path: Path
) -> None:
    """A `portalocker` suppresses what its close raises: a failed flush is an error all the same."""
    portalocker = pytest.importorskip("portalocker")
    good = portalocker.Lock(tmp_path / "good", mode="w")
    full = portalocker.Lock("/dev/full", mode="a")
    for lock in (good, full):
        lock.acquire().write("the last words")
        process.adopt(lock)

    result = process.terminate()

    assert (tmp_path / "good").read_text() == "the last words"
    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "14 buffered bytes are lost: No space left" in result.errors[0].message
    assert good.fh is full.fh is None


def test_a_lock_of_another_thread_is_busy_and_says_so(
    manager: ProcessManager, process: Process, tmp_path: Path
) -> None:
    """No other thread can release it: it says it did, and the kernel that it did not."""
    filelock = pytest.importorskip("filelock")
    path = tmp_path / "lock"
    lock = filelock.FileLock(path)
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            process.adopt(lock)
            is_held.set()
            may_end.wait(10)

    thread, _ = in_thread(hold)
    assert is_held.wait(10)

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "alone can release it" in result.errors[0].message
    assert is_locked(path)

    may_end.set()
    thread.join(10)

    assert manager.orchestrator.cleanup_process(process.pid, grace=0).is_success


def test_a_lock_of_a_thread_that_has_ended_is_released(process: Process, tmp_path: Path) -> None:
    """Nobody else could: what the thread knew of it has gone with it."""
    filelock = pytest.importorskip("filelock")
    path = tmp_path / "lock"
    lock = filelock.FileLock(path)

    def hold() -> None:
        lock.acquire()
        process.adopt(lock)

    in_thread(hold)[0].join(10)
    assert is_locked(path)

    assert process.terminate().is_success
    assert not is_locked(path)


# -- databases ---------------------------------------------------------------


@contextlib.contextmanager
def database(path: Path, **options: Any) -> Iterator[sqlite3.Connection]:
    """A connection with a transaction that is not committed; closed if the test has not."""
    connection = sqlite3.connect(path, **options)
    connection.execute("create table kept (number)")
    connection.execute("insert into kept values (1)")
    connection.commit()
    connection.execute("insert into kept values (2)")
    yield connection
    connection.close()


def numbers_in(path: Path) -> list[int]:
    """What is in the database, for somebody else: nobody locks it."""
    with sqlite3.connect(path, timeout=0) as connection:
        connection.execute("begin immediate")
        found = [number for (number,) in connection.execute("select number from kept")]
    connection.close()
    return found


def is_closed(connection: sqlite3.Connection) -> bool:
    """Whether it is of no use any more."""
    try:
        _ = connection.total_changes
    except sqlite3.ProgrammingError:
        return True
    return False


@pytest.mark.parametrize("check_same_thread", [True, False])
def test_a_database_is_rolled_back_and_closed(
    manager: ProcessManager, process: Process, tmp_path: Path, check_same_thread: bool
) -> None:
    """By the thread that made it, as it insists on by default, though cleanups have their own."""
    path = tmp_path / "database"
    with database(path, check_same_thread=check_same_thread) as connection:
        process.adopt(connection)
        with pytest.raises(AlreadyOwnedError):
            process.adopt(connection)
        described = manager.orchestrator.usage(process.pid)["files"].resources[0].description

        result = process.terminate()

        assert described == f"SQLite database {str(path)!r}"
        assert str(result).endswith("1 resources freed, 0 bytes freed, 0 errors")
        assert is_closed(connection)
        assert numbers_in(path) == [1]


def test_a_database_of_a_loop_is_closed_on_the_loop(
    manager: ProcessManager, tmp_path: Path
) -> None:
    """Its thread is the one that alone may close it, whichever thread its owner ends on."""
    path = tmp_path / "database"

    async def scenario() -> None:
        process = manager.create_process("web")
        with database(path) as connection:
            process.adopt(connection)
            result = await asyncio.to_thread(process.terminate)

            assert result.is_success
            assert is_closed(connection)

        process = manager.create_process("web again")
        with database(tmp_path / "again") as connection:
            process.adopt(connection)
            result = await process.terminate_async()

            assert result.is_success
            assert is_closed(connection)

    asyncio.run(scenario())
    assert numbers_in(path) == [1]


def test_a_database_of_another_thread_is_busy_and_says_so(
    manager: ProcessManager, process: Process, tmp_path: Path
) -> None:
    """What cannot be closed here is not said to be: the account has the way out."""
    path = tmp_path / "database"
    is_made, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with database(path) as connection:
            process.adopt(connection)
            is_made.set()
            may_end.wait(10)

    thread, _ = in_thread(hold)
    assert is_made.wait(10)

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "open it with check_same_thread=False" in result.errors[0].message

    may_end.set()
    thread.join(10)

    assert manager.orchestrator.cleanup_process(process.pid, grace=0).is_success


def test_a_query_that_runs_does_not_hold_the_end_up(process: Process, tmp_path: Path) -> None:
    """Another thread is inside for ever: it is interrupted, and comes out."""
    with database(tmp_path / "database", check_same_thread=False) as connection:
        process.adopt(connection)
        started = threading.Event()

        def note() -> int:
            started.set()
            return 1

        connection.create_function("started", 0, note)
        endless = (
            "with recursive n(i) as (select started() union all select i + 1 from n) "
            "select count(*) from n"
        )
        thread, _ = in_thread(lambda: connection.execute(endless).fetchall())
        assert started.wait(10)

        assert process.terminate().is_success
        thread.join(10)
        assert not thread.is_alive()


def test_what_is_closed_or_anothers_thread_is_not_adopted(process: Process, tmp_path: Path) -> None:
    """An error that says so."""
    with database(tmp_path / "database") as connection:
        _, outcome = thread = in_thread(lambda: process.adopt(connection))
        thread[0].join(10)
        connection.close()

        assert isinstance(outcome[0], UnadoptableError)
        with pytest.raises(UnadoptableError):
            process.adopt(connection)


# -- files -------------------------------------------------------------------


def test_an_hdf5_file_is_closed_by_its_library(process: Process, tmp_path: Path) -> None:
    """By what it can do: what it holds back is written, and its descriptor closed."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "data.h5"
    file = h5py.File(path, "w")
    file["numbers"] = [1, 2, 3]
    fd = file.id.get_vfd_handle()
    process.adopt(file)

    result = process.terminate()

    assert str(result).endswith("1 resources freed, 0 bytes freed, 0 errors")
    assert not is_open(fd)
    with h5py.File(path) as again:
        assert list(again["numbers"]) == [1, 2, 3]


def test_an_hdf5_file_in_an_owned_file_is_closed_first(
    files: FileManager, process: Process, tmp_path: Path
) -> None:
    """Only C code refers to the file beneath: the library is asked."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "data.h5"
    file = h5py.File(files.open(process.pid, path, "w+b"), "w")
    file["numbers"] = [1, 2, 3]

    assert process.terminate().is_success
    assert not file
    with h5py.File(path) as again:
        assert list(again["numbers"]) == [1, 2, 3]


class DataFile:
    """A file as several libraries have them: `filename`, `close`, a context manager."""

    def __init__(self, path: Path) -> None:
        self.filename = str(path)
        self.fd = os.open(path, os.O_CREAT | os.O_RDWR)
        self.calls = 0

    def __enter__(self) -> DataFile:  # noqa: PYI034  never entered
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the end, and close it."""
        self.calls += 1
        os.write(self.fd, b"the end")
        os.close(self.fd)


def test_a_file_of_a_library_whose_descriptor_is_anothers_is_lost_and_says_so(
    process: Process, tmp_path: Path
) -> None:
    """The library would write to whoever has the number by now, and close it."""
    file = DataFile(tmp_path / "data")
    process.adopt(file)
    stranger = os.open(tmp_path / "stranger", os.O_CREAT | os.O_RDWR)
    os.dup2(stranger, file.fd, inheritable=False)

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "what it held is lost" in result.errors[0].message
    assert file.calls == 0
    assert os.fstat(stranger).st_size == 0
    os.close(file.fd)
    os.close(stranger)


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading.Condition])
def test_locks_without_a_path_are_nobodys(process: Process, make: Callable[[], object]) -> None:
    """What has no file says `release=`."""
    with pytest.raises(UnadoptableError, match="release="):
        process.adopt(make())
