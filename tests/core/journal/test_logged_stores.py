"""A store that is written to by its log loses nothing, whenever its writer is killed."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import mmap
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from children import exit_code_of_fork

from probate.journal import ahead, loggedstore
from probate.journal.host import HostJournal
from probate.journal.loggedstore import LoggedStore, read_rows
from probate.journal.named import Named
from probate.journal.store import LostNumberError, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

#: Writes rows for as long as it lives, and deletes every third; says the number of each before and
#: after it is written.
_WRITER = """
import os, sys
from itertools import count
from probate.journal.loggedstore import LoggedStore, read_rows

store = LoggedStore(sys.argv[1])
for number in count(1):
    os.write(1, b"%d\\n" % number)
    store.write(number, {"number": number, "text": "x" * (number % 300)})
    if number % 3 == 0:
        store.delete(number)
    os.write(1, b"%d\\n" % number)
"""

#: Has writers of rows that go from one page to the next, of which one may not be written to. Says
#: of each in which folder its log is, and what it died of; nothing if all had room in the other.
_TORN = """
import ctypes, mmap, os, resource, sys
from probate.journal.ahead import body_of, new_logs, record_of

protect = ctypes.CDLL(None).mprotect
protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for size in (70, 700):
    for first in range(20):
        for page in (0, 1):
            name = f"{size}-{first}-{page}"
            os.mkdir(f"{sys.argv[1]}/{name}")
            log = new_logs(f"{sys.argv[1]}/{name}")[0]
            child = os.fork()
            if child == 0:
                row = {"text": "x" * (mmap.PAGESIZE - 56 + first)}
                log.append(record_of(1, 1, body_of(row)), may_fill=True)
                memory = ctypes.addressof(ctypes.c_char.from_buffer(log._memory))
                assert protect(memory + page * mmap.PAGESIZE, mmap.PAGESIZE, mmap.PROT_READ) == 0
                log.append(record_of(2, 2, body_of({"text": "y" * size})), may_fill=True)
                os._exit(0)
            print(name, os.waitpid(child, 0)[1])
"""

#: Some seven hundred fill a log.
_LONG = "x" * 300


@pytest.fixture
def store(tmp_path: Path) -> LoggedStore:
    """One to be closed before its rows are read, since LMDB opens a folder once at a time."""
    return LoggedStore(str(tmp_path))


def rows(folder: Path) -> dict[int, Any]:
    return {number: json.loads(row) for number, row in read_rows(str(folder))}


@pytest.mark.parametrize("count", [1, 2000, 8000])
def test_what_was_written_is_there_after_a_kill(tmp_path: Path, count: int) -> None:
    """Each row that a write has returned from, and none of those that were deleted."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        for _ in range(count):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        said = [*range(count), *writer.stdout.read().split()]
    written = len(said) // 2
    found = rows(tmp_path)

    assert [number for number in range(1, written + 1) if number % 3] == [
        number for number in found if number <= written
    ]
    assert all(row == {"number": n, "text": "x" * (n % 300)} for n, row in found.items())
    # What it was just about, may be there or not.
    assert set(found) <= set(range(1, written + 2))


def test_rows_are_read_before_and_after_the_log_was_full(
    store: LoggedStore, tmp_path: Path
) -> None:
    """Some are in the store by then, and one that is there already is replaced, or deleted."""
    for number in range(1, 3001):
        store.write(number, {"text": _LONG})
    store.write(1, {"text": "new"})
    store.delete(2)
    store.close()

    assert rows(tmp_path) == {1: {"text": "new"}, **{n: {"text": _LONG} for n in range(3, 3001)}}


def test_whoever_comes_next_goes_on(store: LoggedStore, tmp_path: Path) -> None:
    """All that was written before it, and what it changes."""
    store.write(1, {"text": "first"})
    store.write(2, {"text": "second"})
    store.close()
    again = LoggedStore(str(tmp_path))
    again.delete(2)
    again.write(3, {"text": "third"})
    again.close()

    assert rows(tmp_path) == {1: {"text": "first"}, 3: {"text": "third"}}


@pytest.mark.parametrize("kept", range(1, 60))
@pytest.mark.parametrize("is_suffix", [False, True], ids=["from the front", "from the back"])
def test_a_row_that_was_not_written_to_its_end_is_none(
    store: LoggedStore, tmp_path: Path, kept: int, is_suffix: bool
) -> None:
    """Its writer was killed as it was copied, by eight bytes at a time: those before it count."""
    store.write(1, {"text": "whole"})
    store.write(2, {"text": "x" * 400})
    store.close()
    log = tmp_path / "ahead"
    second, end = list(_places(log))[1:]
    with log.open("r+b") as file:
        if is_suffix:
            # The head, of two such pieces, is copied as one by whatever copies backwards.
            file.seek(second)
            file.write(bytes(max(24, end - second - 8 * kept)))
        else:
            file.seek(second + kept)
            file.write(bytes(end - second - kept))

    assert rows(tmp_path) == {1: {"text": "whole"}}


def test_a_row_whose_copy_ends_at_any_page_is_none(tmp_path: Path) -> None:
    """Its writer dies as it first writes to a page, whichever piece the C library copies first."""
    program = subprocess.run(
        [sys.executable, "-c", _TORN, str(tmp_path)], check=True, capture_output=True, timeout=60
    )
    said = [line.split() for line in program.stdout.splitlines()]
    assert sum(status == b"11" for _, status in said) > 50
    for name, status in said:
        found = rows(tmp_path / name.decode())
        assert list(found) == ([1] if int(status) else [1, 2]), name


@pytest.mark.parametrize("damage", [b"\xff" * 8, b"s\0\0\0\0"], ids=["nothing", "no JSON"])
@pytest.mark.parametrize("which", [0, 1], ids=["first", "last"])
def test_a_damaged_log_is_an_error(
    store: LoggedStore, tmp_path: Path, damage: bytes, which: int
) -> None:
    """Nothing is made up of what cannot be read, or is no row."""
    store.write(1, {"text": "whole"})
    store.write(2, {"text": "whole"})
    store.close()
    log = tmp_path / "ahead"
    at = list(_places(log))[which]
    with log.open("r+b") as file:
        file.seek(at + 24)
        file.write(damage)

    with pytest.raises(OSError, match="is damaged"):
        rows(tmp_path)


def test_flaws_in_a_log_make_up_nothing(store: LoggedStore, tmp_path: Path) -> None:
    """Bytes changed at random: it is an error, or some of the latest rows are missing."""
    for number in range(1, 20):
        store.write(number, {"number": number, "text": "x" * number})
    store.close()
    log = tmp_path / "ahead"
    whole = log.read_bytes()
    end = list(_places(log))[-1]
    seed = random.randrange(1 << 30)
    generator = random.Random(seed)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(generator.randrange(1, 9)):
            content[generator.randrange(end + 64)] = generator.randrange(256)
        log.write_bytes(content)
        try:
            found = rows(tmp_path)
        except OSError:
            continue
        assert found == {n: {"number": n, "text": "x" * n} for n in range(1, len(found) + 1)}, seed


def test_without_room_for_a_log_rows_are_written_all_the_same(tmp_path: Path) -> None:
    """A limit of the size of files is too small for it, and not for a row."""
    program = """
import sys
from probate.journal.loggedstore import LoggedStore, read_rows

LoggedStore(sys.argv[1]).write(1, {"text": "written"})
"""
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17)),
    )

    assert rows(tmp_path) == {1: {"text": "written"}}


def test_an_old_log_counts_once(store: LoggedStore, tmp_path: Path) -> None:
    """Also where there is no room for a new one: what was written since is newer than it."""
    store.write(1, {"text": "old"})
    store.write(2, {"text": "old"})
    store.close()
    program = """
import sys
from probate.journal.loggedstore import LoggedStore, read_rows

store = LoggedStore(sys.argv[1])
store.write(1, {"text": "new"})
store.delete(2)
"""
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17)),
    )

    assert rows(tmp_path) == {1: {"text": "new"}}


def test_of_what_is_no_json_no_other_row_suffers(tmp_path: Path) -> None:
    """Such as of a kind that notes bytes or sets: others are read, and go into the store."""
    for number, value in enumerate((b"text", b"\xff", {1}, ...)):
        folder = tmp_path / str(number)
        folder.mkdir()
        store = LoggedStore(str(folder))
        store.write(1, {"of": value})
        if number % 2:
            for other in range(3, 1000):
                store.write(other, {"text": _LONG})
        store.write(2, {"text": "other"})
        store.close()

        found = rows(folder)
        assert found[2] == {"text": "other"}
        assert 1 in found


def test_whoever_writes_when_it_is_closed_is_told(store: LoggedStore, tmp_path: Path) -> None:
    """By an OSError, for which a journal looks for where its rows have gone to."""
    store.write(1, {"text": "written"})
    store.close()
    with pytest.raises(LostNumberError):
        store.write(1, {"text": "late"})
    with pytest.raises(LostNumberError):
        store.delete(1)

    assert rows(tmp_path) == {1: {"text": "written"}}


@pytest.fixture
def small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs that are full after some rows."""
    monkeypatch.setattr(ahead, "_SIZE", mmap.ALLOCATIONGRANULARITY)
    monkeypatch.setattr(ahead, "_FULL", 600)


def write_some(store: LoggedStore, done: Callable[[int, object], object]) -> None:
    """Write rows that fill both logs and more, change some, and delete others."""
    for number in range(1, 9):
        row = {"number": number, "text": "x" * 100}
        store.write(number, row)
        done(number, row)
        if number % 3 == 0:
            store.delete(number)
            done(number, None)
        if number % 4 == 0:
            store.write(number - 2, {"number": number - 2, "text": "new"})
            done(number - 2, {"number": number - 2, "text": "new"})


class AtLine:
    """Has something done at one line of what writes a store, counted from the first."""

    def __init__(self, wanted: int, do: Callable[[], object]) -> None:
        self.left = wanted
        self._do = do

    def __call__(self, frame: FrameType, event: str, _: object) -> AtLine | None:
        if frame.f_code.co_filename not in {ahead.__file__, loggedstore.__file__}:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self._do()
        return self


def of_all_lines(
    folder: Path, host: Callable[[LoggedStore, int], int], step: int = 7
) -> Iterator[Path]:
    """Have hosts write, each with another line; yield the folders, until no line is left.

    Of several lines one at random, unless there is time for all.
    """

    def write_by(place: Path, wanted: int) -> None:
        os._exit(host(LoggedStore(str(place)), wanted))

    step = 1 if os.environ.get("PROBATE_CHAOS") else step
    for wanted in itertools.count(random.randint(1, step), step):
        place = folder / str(wanted)
        place.mkdir()
        code = exit_code_of_fork(functools.partial(write_by, place, wanted))
        yield place
        if code == LAST:
            return
        assert code in {0, -signal.SIGKILL}


#: What a host ends with that had no such line.
LAST = 42


@pytest.mark.usefixtures("small_logs")
def test_killed_at_any_step_a_writer_loses_nothing(tmp_path: Path) -> None:
    """What a write has returned from is there, and no other but the one that it was about."""

    def host(store: LoggedStore, wanted: int) -> int:
        said = open(f"{store_folder(store)}.said", "wb", buffering=0)  # noqa: SIM115  until the end

        def say(*change: object) -> None:
            said.write(json.dumps(change).encode() + b"\n")

        at = AtLine(wanted, lambda: os.kill(os.getpid(), signal.SIGKILL))
        sys.settrace(at)
        write_some(store, say)
        sys.settrace(None)
        return LAST

    tried = 0
    for place in of_all_lines(tmp_path, host):
        tried += 1
        changes = [json.loads(line) for line in Path(f"{place}.said").read_bytes().splitlines()]
        expected = dict(changes)
        found = rows(place)
        all_changes: list[list[Any]] = []
        write_some(Recorder(all_changes), lambda *_: None)  # type: ignore[arg-type]  # as a store
        # The next one may be there as well.
        possible = [expected, expected | dict(all_changes[len(changes) : len(changes) + 1])]
        assert found in [{n: row for n, row in each.items() if row} for each in possible]
    assert tried > 20


class Recorder:
    """Takes rows as a store does, and notes them alone."""

    def __init__(self, changes: list[list[Any]]) -> None:
        self._changes = changes

    def write(self, number: int, row: object) -> None:
        self._changes.append([number, row])

    def delete(self, number: int) -> None:
        self._changes.append([number, None])


def store_folder(store: LoggedStore) -> str:
    return os.fsdecode(store._folder)


@pytest.mark.usefixtures("small_logs")
@pytest.mark.parametrize("raises", [False, True], ids=["and returns", "and raises"])
def test_a_signal_handler_may_write_at_any_step(tmp_path: Path, raises: bool) -> None:
    """Also in the midst of a turn: what it has written is there, and all that was, and comes."""

    def host(store: LoggedStore, wanted: int) -> int:
        # One row that it changes may be on its way into the store.
        expected: dict[int, object] = {50: {"number": 50, "text": "old"}}
        store.write(50, {"number": 50, "text": "old"})

        def handle() -> None:
            for number in (50, *range(100, 108)):
                store.write(number, {"number": number, "text": "y" * 100})
                expected[number] = {"number": number, "text": "y" * 100}
            if raises:
                raise KeyboardInterrupt

        at = AtLine(wanted, handle)
        sys.settrace(at)
        done: dict[int, object] = {}
        # The one that it fell into is there or not, and is written again.
        with contextlib.suppress(KeyboardInterrupt):
            write_some(store, done.__setitem__)
        sys.settrace(None)
        write_some(store, done.__setitem__)
        store.write(200, {"number": 200})
        expected |= done | {200: {"number": 200}}
        found = {row["number"]: row for row in store.rows()}
        store.close()
        read = {n: json.loads(row) for n, row in read_rows(store_folder(store))}
        wanted_rows = {n: row for n, row in expected.items() if row}
        assert found == read == wanted_rows, wanted
        return LAST if at.left > 0 else 0

    tried = sum(1 for _ in of_all_lines(tmp_path, host))
    assert tried > 20


@pytest.mark.usefixtures("small_logs")
def test_of_one_row_the_file_has_what_the_memory_has(tmp_path: Path) -> None:
    """A signal handler deletes what is being written: whichever counts, it does so for all."""

    def host(store: LoggedStore, wanted: int) -> int:
        at = AtLine(wanted, lambda: store.delete(1))
        sys.settrace(at)
        store.write(1, {"number": 1})
        sys.settrace(None)
        found = store.rows()
        store.close()
        assert found == [json.loads(row) for _, row in read_rows(store_folder(store))], wanted
        return LAST if at.left > 0 else 0

    for _ in of_all_lines(tmp_path, host, step=1):
        pass


def test_a_child_forked_in_the_midst_of_a_write_writes_nothing(tmp_path: Path) -> None:
    """By a signal handler that returns in both: what the parent has written since is there."""

    def host(folder: Path, wanted: int) -> None:
        journal = HostJournal(str(folder), has_reaper=False)
        journal.open()
        expected: list[str] = []

        def make(text: str) -> None:
            journal.intend("memory", 0, Named(text, {}, lambda _: {}))
            expected.append(text)

        child = -1
        # The child goes on when the parent has written.
        reading, writing = os.pipe()

        def fork() -> None:
            nonlocal child
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.read(reading, 1)
                return
            for text in "abc":
                make(text)
            os.close(writing)

        make("before")
        store = str(journal.folder)
        at = AtLine(wanted, fork)
        sys.settrace(at)
        with contextlib.suppress(OSError):
            for text in "ABC":
                make(text)
        sys.settrace(None)
        if child == 0:
            # Whatever it makes by now is its own.
            make("of the child")
            os._exit(0 if str(journal.folder) != store else 1)
        if child > 0:
            assert os.waitpid(child, 0)[1] == 0, wanted
        make("after")
        (folder / "expected").write_text(json.dumps([store, sorted(expected)]))
        os._exit(LAST if at.left > 0 else 0)

    for wanted in itertools.count(random.randint(1, 5), 1 if "PROBATE_CHAOS" in os.environ else 5):
        folder = tmp_path / str(wanted)
        folder.mkdir(0o700)
        code = exit_code_of_fork(functools.partial(host, folder, wanted))
        assert code in {0, LAST}
        store, expected = json.loads((folder / "expected").read_text())
        found = sorted(row["description"] for row in rows(Path(store)).values())
        assert found == expected, wanted
        if code == LAST:
            break


@pytest.mark.usefixtures("small_logs")
def test_killed_as_it_takes_over_whoever_comes_next_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where both logs have rows, since a disk was full: what was deleted stays so."""
    first = tmp_path / "first"
    first.mkdir()

    def leave() -> None:
        store = LoggedStore(str(first))
        for number in itertools.count(1):
            if number > 7:
                monkeypatch.setattr(Store, "write_all", refuse)
            try:
                store.write(number, {"number": number, "text": "x" * 100})
            except OSError:
                break
        store.delete(number - 1)
        assert all(log.nbytes for log in store._logs)
        os._exit(0)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert exit_code_of_fork(leave) == 0
    expected = rows(first)
    assert len(expected) > 5

    def take_over(folder: Path, wanted: int) -> None:
        at = AtLine(wanted, lambda: os.kill(os.getpid(), signal.SIGKILL))
        sys.settrace(at)
        LoggedStore(str(folder))
        os._exit(LAST)

    for wanted in itertools.count(1):
        folder = tmp_path / str(wanted)
        shutil.copytree(first, folder)
        code = exit_code_of_fork(functools.partial(take_over, folder, wanted))
        assert rows(folder) == expected, wanted
        if code == LAST:
            break
        assert code == -signal.SIGKILL
    assert wanted > 20


@pytest.mark.usefixtures("small_logs")
def test_killed_as_it_copies_it_leaves_all_rows_or_none(tmp_path: Path) -> None:
    """Some are in the store alone, and some of those are deleted by a log."""

    def host(store: LoggedStore, wanted: int) -> int:
        write_some(store, lambda *_: None)
        new = f"{store_folder(store)}.new"
        Path(new).mkdir()
        at = AtLine(wanted, lambda: os.kill(os.getpid(), signal.SIGKILL))
        sys.settrace(at)
        store.copy_to(new)
        sys.settrace(None)
        return LAST

    found = [
        (rows(place), rows(Path(f"{place}.new"))) for place in of_all_lines(tmp_path, host, step=1)
    ]
    assert len(found) > 20
    assert all(copied in ({}, left) for left, copied in found)
    assert found[-1][0] == found[-1][1] != {}


@pytest.mark.usefixtures("small_logs")
def test_threads_write_at_a_time_while_others_read(store: LoggedStore, tmp_path: Path) -> None:
    """Each of them has its own rows, all of which are there; a reader never finds fewer."""

    def write(first: int) -> None:
        for number in range(first, first + 300):
            store.write(number, {"number": number})
            if number % 2:
                store.delete(number)

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(write, 1 + 1000 * n) for n in range(4)]:
            each.result()
    store.close()

    numbers = [n for first in range(1, 4000, 1000) for n in range(first, first + 300)]
    assert rows(tmp_path) == {n: {"number": n} for n in numbers if not n % 2}


@pytest.mark.usefixtures("small_logs")
def test_what_the_store_cannot_take_is_refused_and_the_rest_stays(
    store: LoggedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is full: what is deleted has room all the same, and makes room."""
    written: list[int] = []
    refused: list[int | None] = []
    with monkeypatch.context() as full:

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        full.setattr(Store, "write_all", refuse)
        for number in range(1, 40):
            try:
                store.write(number, {"number": number, "text": "x" * 100})
                written.append(number)
            except OSError as error:
                refused.append(error.errno)
        # First one for each log; then all of them.
        assert refused == [errno.ENOSPC] * (39 - len(written))
        assert written[-1] < 10
        assert sorted(row["number"] for row in store.rows()) == written
        for number in written[1:]:
            store.delete(number)
        assert [row["number"] for row in store.rows()] == [1]
    store.write(1000, {"number": 1000})
    store.close()

    assert set(rows(tmp_path)) == {1, 1000}


def test_where_a_write_needs_room_each_row_is_a_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that writes nothing in its place, a full disk is a SIGBUS by memory."""
    monkeypatch.setattr(ahead, "file_system_type", lambda _: 0x9123683E)
    store = LoggedStore(str(tmp_path))
    store.write(1, {"text": "written"})
    store.close()

    assert [each.name for each in tmp_path.iterdir()] == ["data.mdb"]
    assert rows(tmp_path) == {1: {"text": "written"}}


def test_the_number_of_a_log_is_not_closed_if_it_is_anothers(
    store: LoggedStore, tmp_path: Path
) -> None:
    """A map keeps a descriptor; somebody has closed it, and opened a file of his own."""
    (tmp_path / "own").write_text("theirs")
    links = {int(each.name): os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()}
    numbers = [n for n, link in links.items() if link == f"{tmp_path}/ahead"]
    assert len(numbers) == 2
    for number in numbers:
        own = os.open(tmp_path / "own", os.O_RDONLY)
        os.dup2(own, number)
        os.close(own)
    store.write(1, {"text": "written"})
    store.close()

    assert [os.pread(number, 10, 0) for number in numbers] == [b"theirs"] * 2
    for number in numbers:
        os.close(number)
    assert rows(tmp_path) == {1: {"text": "written"}}


@pytest.mark.parametrize("name", ["data.mdb", "ahead"])
def test_a_store_of_which_a_file_is_missing_is_not_found(
    store: LoggedStore, tmp_path: Path, name: str
) -> None:
    """Whichever: something cleans up by age. It is copied, with all rows."""
    store.write(1, {"number": 1})
    os.utime(tmp_path, (1, 1))
    assert store.is_found()
    (tmp_path / name).unlink()
    new = tmp_path / "new"
    new.mkdir()

    assert not store.is_found()
    assert not store.is_there()
    copied = store.copy_to(str(new))
    copied.write(2, {"number": 2})
    copied.close()
    store.close()
    assert set(rows(new)) == {1, 2}


def _places(log: Path) -> Iterator[int]:
    """Yield where each row begins, and where the next would: its length and one more, and so on."""
    written = log.read_bytes()
    at = 0
    yield at
    while length := int.from_bytes(written[at : at + 4], "little"):
        at += 24 + length - 1
        yield at
