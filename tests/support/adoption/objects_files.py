"""Files, what the standard library puts on top of them, and bare descriptor numbers."""

from __future__ import annotations

import bz2
import codecs
import contextlib
import fileinput
import gzip
import io
import lzma
import os
import shutil
import sys
import tarfile
import tempfile
import wave
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adoption.case import Trial, case
from adoption.witness import Witness, holds, number, path

if TYPE_CHECKING:
    from adoption.place import Place

FILES: Final = "Files"
ABOVE: Final = "What stands on a file"
TEMPORARY: Final = "Temporary files and folders"


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
    made: Any = os.popen("exec sleep 1000")
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
