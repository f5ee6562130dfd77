"""Files, what the standard library puts on top of them, and bare descriptor numbers."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import ctypes
import dbm.dumb
import fcntl
import fileinput
import gzip
import io
import logging
import logging.handlers
import lzma
import mailbox
import os
import select
import shelve
import shutil
import socket
import sqlite3
import sys
import tarfile
import tempfile
import wave
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adoption.case import Trial, case
from adoption.witness import Witness, holds, number, path, works

if TYPE_CHECKING:
    from adoption.place import Place

FILES: Final = "Files"
ABOVE: Final = "What stands on a file"
TEMPORARY: Final = "Temporary files and folders"
NUMBERS: Final = "Descriptor numbers"
DATABASES: Final = "Databases"
LOGGING: Final = "Logging"


def _open(place: Place, mode: str, **options: Any) -> Trial:
    name = place.file()
    file = place.enter_context(open(name, mode, **options))
    more: tuple[Witness, ...] = ()
    if set(mode) & set("wa+"):
        file.write(b"buffered" if "b" in mode else "buffered")
        more = (_unwritten(name),) if options.get("buffering") != 0 else ()
    return Trial(file, (number(file.fileno()), *more))


def _unwritten(name: Path) -> Witness:
    return Witness("what was buffered is written", lambda: b"buffered" not in name.read_bytes())


for _mode in ("r", "w", "a", "r+", "rb", "wb", "r+b"):
    case(FILES, f'`open(path, "{_mode}")`')(partial(_open, mode=_mode))
case(FILES, '`open(path, "wb", buffering=0)`')(lambda place: _open(place, "wb", buffering=0))
case(FILES, '`open(path, "w", buffering=1)`, by lines')(
    lambda place: _open(place, "w", buffering=1)
)


@case(FILES, "`os.fdopen` of a pipe's end")
def fdopen(place: Place) -> Trial:
    reading, writing = os.pipe()
    place.finally_(os.close, writing)
    file = place.enter_context(os.fdopen(reading, "rb"))
    return Trial(file, (number(reading),))


@case(FILES, "`open(fd, closefd=False)`: a file object that leaves its number open")
def no_closefd(place: Place) -> Trial:
    fd = os.open(place.file(), os.O_RDONLY)
    place.finally_(os.close, fd)
    file = place.enter_context(open(fd, "rb", closefd=False))
    return Trial(file, (holds(lambda: not file.closed, "closed; its number is left open"),))


@case(FILES, "`os.popen`")
def popen(place: Place) -> Trial:
    made: Any = os.popen("sleep 1000")
    place.finally_(made._proc.kill)

    def close(file: Any) -> None:
        file._proc.kill()
        file.close()

    return Trial(
        made,
        (number(made.fileno()),),
        release=close,
        say="close, which waits for the program; or adopt a `subprocess.Popen`",
    )


@case(FILES, "`io.BytesIO`")
def bytes_io(_: Place) -> Trial:
    return _memory_file(io.BytesIO())


@case(FILES, "`io.StringIO`")
def string_io(_: Place) -> Trial:
    return _memory_file(io.StringIO())


def _memory_file(file: Any) -> Trial:
    return Trial(
        file, (holds(lambda: not file.closed, "closed"),), release=file.close, say="file.close"
    )


@case(FILES, "file that is closed")
def closed_file(place: Place) -> Trial:
    with open(place.file()) as file:
        pass
    return Trial(file)


@case(FILES, "`sys.stdout`, and the host's other streams")
def stdout(_: Place) -> Trial:
    return Trial(
        sys.__stdout__,
        (number(1),),
        release=lambda _: None,
        say="nothing; a duplicate can be adopted",
    )


@case(FILES, "`os.scandir` iterator")
def scandir(place: Place) -> Trial:
    place.file()
    made = os.scandir(place.folder)
    place.callback(made.close)
    [fd] = [fd for fd in os.listdir("/proc/self/fd") if _is(fd, place.folder)]  # noqa: PTH208  numbers
    return Trial(made, (number(int(fd)),), release=made.close, say="iterator.close")


def _is(fd: str, folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{fd}") == str(folder)
    return False


@case(FILES, "`os.DirEntry`")
def dir_entry(place: Place) -> Trial:
    place.file()
    with os.scandir(place.folder) as entries:
        return Trial(next(entries))


@case(FILES, "`pathlib.Path`")
def plain_path(place: Place) -> Trial:
    name = place.file()
    return Trial(name, (path(name),), release=Path.unlink, say="Path.unlink")


@case(FILES, "`fileinput.FileInput`")
def file_input(place: Place) -> Trial:
    made = place.enter_context(fileinput.FileInput([place.file()]))
    next(iter(made))
    return Trial(made, (number(made.fileno()),), release=made.close, say="input.close")


# -- above -------------------------------------------------------------------------


def _above(place: Place, file: Any, name: Path) -> Trial:
    place.finally_(file.close)
    file.write(b"buffered" if not isinstance(file, io.TextIOBase) else "buffered")
    fd = file.fileno()
    before = name.stat().st_size
    complete = Witness("complete", lambda: name.stat().st_size == before)
    return Trial(file, (number(fd), complete))


@case(ABOVE, "`gzip.open`")
def gzip_file(place: Place) -> Trial:
    return _above(place, gzip.open(place.file(), "wb"), place.folder / "file")


@case(ABOVE, "`gzip.open`, as text")
def gzip_text(place: Place) -> Trial:
    return _above(place, gzip.open(place.file(), "wt"), place.folder / "file")


@case(ABOVE, "`bz2.open`")
def bz2_file(place: Place) -> Trial:
    return _above(place, bz2.open(place.file(), "wb"), place.folder / "file")


@case(ABOVE, "`lzma.open`")
def lzma_file(place: Place) -> Trial:
    return _above(place, lzma.open(place.file(), "wb"), place.folder / "file")


@case(ABOVE, "`gzip.GzipFile` over somebody's file")
def gzip_over(place: Place) -> Trial:
    file = place.enter_context(open(place.file(), "wb"))
    made = gzip.GzipFile(fileobj=file, mode="wb")
    trial = _above(place, made, place.folder / "file")
    return Trial(made, trial.witnesses)


@case(ABOVE, "`codecs` writer")
def codecs_file(place: Place) -> Trial:
    file = open(place.file(), "wb", buffering=0)
    place.finally_(file.close)
    made = codecs.getwriter("utf-8")(file)
    made.write("buffered")
    return Trial(made, (number(file.fileno()),))


@case(ABOVE, "`zipfile.ZipFile`")
def zip_file(place: Place) -> Trial:
    made = zipfile.ZipFile(place.folder / "zip", "w")
    place.finally_(made.close)
    made.writestr("member", "content")
    whole = holds(lambda: not zipfile.is_zipfile(place.folder / "zip"), "complete")
    return Trial(made, (number(made.fp.fileno()), whole))  # type: ignore[union-attr]


@case(ABOVE, "member of a `ZipFile`, read")
def zip_member(place: Place) -> Trial:
    with zipfile.ZipFile(place.folder / "zip", "w") as archive:
        archive.writestr("member", "content")
    archive = place.enter_context(zipfile.ZipFile(place.folder / "zip"))
    member = place.enter_context(archive.open("member"))
    return Trial(
        member,
        (holds(lambda: not member.closed, "closed"),),
        release=member.close,
        say="member.close; or adopt the archive",
    )


@case(ABOVE, "`tarfile.open`")
def tar_file(place: Place) -> Trial:
    made: Any = tarfile.open(place.folder / "tar", "w")
    place.finally_(made.close)
    made.addfile(tarfile.TarInfo("member"))
    fd = made.fileobj.fileno()
    size = holds(lambda: (place.folder / "tar").stat().st_size < 1024, "complete")
    return Trial(made, (number(fd), size))


@case(ABOVE, "`wave.open`")
def wave_writer(place: Place) -> Trial:
    made: Any = wave.open(str(place.folder / "wave"), "wb")
    place.finally_(made.close)
    made.setparams((1, 1, 8000, 0, "NONE", ""))
    made.writeframesraw(b"frames")
    fd = made._file.fileno()
    return Trial(made, (number(fd),), release=made.close, say="writer.close; or adopt its file")


# -- temporary ---------------------------------------------------------------------


@case(TEMPORARY, "`tempfile.TemporaryFile`")
def temporary_file(place: Place) -> Trial:
    file = place.enter_context(tempfile.TemporaryFile(dir=place.folder))
    return Trial(file, (number(file.fileno()),))


@case(TEMPORARY, "`tempfile.NamedTemporaryFile`")
def named_temporary_file(place: Place) -> Trial:
    file = place.enter_context(tempfile.NamedTemporaryFile(dir=place.folder))
    return Trial(file, (number(file.fileno()), path(file.name)))


@case(TEMPORARY, "`tempfile.NamedTemporaryFile(delete=False)`")
def kept_temporary_file(place: Place) -> Trial:
    file = place.enter_context(tempfile.NamedTemporaryFile(dir=place.folder, delete=False))
    file.write(b"buffered")
    return Trial(file, (number(file.fileno()), _unwritten(Path(file.name))))


@case(TEMPORARY, "`tempfile.SpooledTemporaryFile`, in memory")
def spooled_file(place: Place) -> Trial:
    file = place.enter_context(tempfile.SpooledTemporaryFile(max_size=100, dir=str(place.folder)))
    return Trial(file, (holds(lambda: not file.closed, "closed"),))


@case(TEMPORARY, "`tempfile.SpooledTemporaryFile`, on disk")
def rolled_file(place: Place) -> Trial:
    file = place.enter_context(tempfile.SpooledTemporaryFile(max_size=1, dir=str(place.folder)))
    file.write(b"more than one")
    return Trial(file, (number(file.fileno()),))


@case(TEMPORARY, "`tempfile.TemporaryDirectory`")
def temporary_directory(place: Place) -> Trial:
    made = tempfile.TemporaryDirectory(dir=place.folder)
    place.finally_(made.cleanup)
    Path(made.name, "inside").touch()
    return Trial(made, (path(made.name, "removed, with all that is in it"),))


@case(TEMPORARY, "number that `tempfile.mkstemp` returned")
def mkstemp(place: Place) -> Trial:
    fd, name = tempfile.mkstemp(dir=place.folder)
    place.finally_(os.close, fd)
    assert Path(name).exists()
    return Trial(fd, (number(fd, "closed; its path stays"),))


@case(TEMPORARY, "path that `tempfile.mkdtemp` returned")
def mkdtemp(place: Place) -> Trial:
    name = tempfile.mkdtemp(dir=place.folder)
    return Trial(name, (path(name, "removed"),), release=shutil.rmtree, say="shutil.rmtree")


# -- numbers -----------------------------------------------------------------------


def _number(place: Place, fd: int, gone: str = "closed") -> Trial:
    place.finally_(os.close, fd)
    return Trial(fd, (number(fd, gone),))


case(NUMBERS, "`os.open` of a file")(lambda place: _number(place, os.open(place.file(), os.O_RDWR)))
case(NUMBERS, "`os.open` of a folder")(
    lambda place: _number(place, os.open(place.folder, os.O_RDONLY | os.O_DIRECTORY))
)
case(NUMBERS, "`os.open` with O_PATH")(
    lambda place: _number(place, os.open(place.folder, os.O_PATH))
)


@case(NUMBERS, "one end of `os.pipe`")
def pipe_number(place: Place) -> Trial:
    reading, writing = os.pipe()
    place.finally_(os.close, reading)
    return _number(place, writing)


@case(NUMBERS, "`os.openpty`")
def pty_number(place: Place) -> Trial:
    ours, other = os.openpty()
    place.finally_(os.close, other)
    return _number(place, ours)


case(NUMBERS, "`os.eventfd`")(lambda place: _number(place, os.eventfd(0)))
case(NUMBERS, "`os.memfd_create`")(lambda place: _number(place, os.memfd_create("adopted")))
case(NUMBERS, "`os.pidfd_open`")(lambda place: _number(place, os.pidfd_open(os.getpid())))


@case(NUMBERS, "number of an epoll instance")
def epoll_number(place: Place) -> Trial:
    with select.epoll() as epoll:
        return _number(place, os.dup(epoll.fileno()))


@case(NUMBERS, "`timerfd_create`")
def timer_number(place: Place) -> Trial:
    return _number(place, ctypes.CDLL(None).timerfd_create(1, os.O_CLOEXEC))


@case(NUMBERS, "`signalfd`")
def signal_number(place: Place) -> Trial:
    mask = ctypes.create_string_buffer(128)
    return _number(place, ctypes.CDLL(None).signalfd(-1, mask, os.O_CLOEXEC))


@case(NUMBERS, "`inotify_init`")
def inotify_number(place: Place) -> Trial:
    return _number(place, ctypes.CDLL(None).inotify_init1(os.O_CLOEXEC))


@case(NUMBERS, "number with a flock")
def flock_number(place: Place) -> Trial:
    fd = os.open(place.file(), os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    other = os.open(place.folder / "file", os.O_RDWR)
    place.finally_(os.close, other)

    def is_locked() -> bool:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    trial = _number(place, fd)
    return Trial(fd, (*trial.witnesses, holds(is_locked, "its lock free")))


case(NUMBERS, "0, 1 or 2")(
    lambda _: Trial(0, (number(0),), say="nothing; a duplicate can be adopted")
)
case(NUMBERS, "number that is not open")(lambda _: Trial(1_000_000))
case(NUMBERS, "True")(lambda _: Trial(True))


# -- databases ---------------------------------------------------------------------


@case(DATABASES, "`sqlite3.Connection`")
def sqlite(place: Place) -> Trial:
    connection = sqlite3.connect(place.folder / "data")
    place.callback(connection.close)
    connection.execute("create table t (x)")
    return Trial(connection, (works(lambda: connection.total_changes, "rolled back and closed"),))


@case(DATABASES, "`sqlite3.Connection`, in memory")
def sqlite_in_memory(place: Place) -> Trial:
    connection = sqlite3.connect(":memory:")
    place.callback(connection.close)
    return Trial(connection, (works(lambda: connection.total_changes, "closed"),))


@case(DATABASES, "`sqlite3.Cursor`")
def cursor(place: Place) -> Trial:
    # Functions are called on a thread of the termination's own.
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    place.callback(connection.close)
    made = connection.execute("select 1")
    return Trial(
        made,
        (works(made.fetchone, "closed"),),
        release=made.close,
        say="cursor.close; or adopt the connection",
    )


@case(DATABASES, "`sqlite3.Connection` that is closed")
def closed_sqlite(_: Place) -> Trial:
    connection = sqlite3.connect(":memory:")
    connection.close()
    return Trial(connection)


@case(DATABASES, "`dbm` database")
def dbm_database(place: Place) -> Trial:
    made = dbm.dumb.open(str(place.folder / "data"), "c")
    place.finally_(made.close)
    made[b"key"] = b"value"
    return Trial(
        made, (works(lambda: made[b"key"], "closed"),), release=made.close, say="database.close"
    )


@case(DATABASES, "`shelve` shelf")
def shelf(place: Place) -> Trial:
    # A `dbm.dumb` takes strings and bytes.
    made: Any = shelve.Shelf(dbm.dumb.open(str(place.folder / "data"), "c"))  # type: ignore[arg-type]  # as above
    place.finally_(made.close)
    made["key"] = 1
    return Trial(
        made, (works(lambda: made["key"], "closed"),), release=made.close, say="shelf.close"
    )


@case(DATABASES, "`mailbox.mbox`")
def mbox(place: Place) -> Trial:
    made = mailbox.mbox(place.folder / "mbox")
    place.finally_(made.close)
    return Trial(
        made,
        (number(made._file.fileno()),),  # type: ignore[attr-defined]
        release=made.close,
        say="mailbox.close",
    )


# -- logging -----------------------------------------------------------------------


@case(LOGGING, "`logging.FileHandler`")
def file_handler(place: Place) -> Trial:
    return _handler(place, logging.FileHandler(place.folder / "log"))


@case(LOGGING, "`logging.handlers.RotatingFileHandler`")
def rotating_handler(place: Place) -> Trial:
    return _handler(place, logging.handlers.RotatingFileHandler(place.folder / "log"))


def _handler(place: Place, handler: logging.FileHandler) -> Trial:
    place.finally_(handler.close)
    assert handler.stream is not None
    return Trial(
        handler, (number(handler.stream.fileno()),), release=handler.close, say="handler.close"
    )


@case(LOGGING, "`logging.handlers.SocketHandler`")
def socket_handler(place: Place) -> Trial:
    listener = place.enter_context(socket.create_server(("127.0.0.1", 0)))
    handler = logging.handlers.SocketHandler(*listener.getsockname())
    place.finally_(handler.close)
    handler.createSocket()
    assert handler.sock is not None
    return Trial(
        handler, (number(handler.sock.fileno()),), release=handler.close, say="handler.close"
    )


@case(LOGGING, "`logging.Logger`")
def logger(_: Place) -> Trial:
    return Trial(logging.getLogger("adopted"))
