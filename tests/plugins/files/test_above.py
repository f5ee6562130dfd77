"""What stands above an owned file is closed before it, whoever has put it there."""

# ruff: noqa: SIM115  what stands above a file here is left to the end of its owner

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import os
import tarfile
import wave
import zipfile
from typing import IO, TYPE_CHECKING, Any, Self

import pytest
from files_kernel import is_open

from probate import AlreadyOwnedError, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import Process, ProcessManager
    from probate_files import FileManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

DATA = b"x" * 1000


class Shelved:
    """A context manager of somebody's own that keeps all back until it is closed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.kept = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.kept += data

    def close(self) -> None:
        """Write it."""
        self.file.write(self.kept)
        self.kept = b""


class Twofold(Shelved):
    """The same, on two files."""

    def __init__(self, file: IO[bytes], other: IO[bytes]) -> None:
        super().__init__(file)
        self.other = other


def text(file: IO[bytes]) -> Any:
    """Text, as `io.TextIOWrapper` keeps it back."""
    top = io.TextIOWrapper(file)
    top.write(DATA.decode())
    return top


def text_in_gzip(file: IO[bytes]) -> Any:
    """Text in a compressed file: two layers that are nobody's."""
    top = io.TextIOWrapper(gzip.GzipFile(fileobj=file, mode="wb"))
    top.write(DATA.decode())
    return top


def written(make: Callable[[IO[bytes]], Any]) -> Callable[[IO[bytes]], Any]:
    """A writer of bytes."""

    def make_and_write(file: IO[bytes]) -> Any:
        top = make(file)
        top.write(DATA)
        return top

    return make_and_write


def zipped(file: IO[bytes]) -> Any:
    """An archive whose directory is written at its end."""
    top = zipfile.ZipFile(file, "w")
    top.writestr("a", DATA)
    return top


def zip_member(file: IO[bytes]) -> Any:
    """A member of an archive, half written; the archive itself is nobody's."""
    top = zipfile.ZipFile(file, "w").open("a", "w")
    top.write(DATA)
    return top


def tarred(mode: str) -> Callable[[IO[bytes]], Any]:
    """An archive whose last blocks are written at its end."""

    def make(file: IO[bytes]) -> Any:
        top = tarfile.open(fileobj=file, mode=mode)  # type: ignore[call-overload]  # one of several
        info = tarfile.TarInfo("a")
        info.size = len(DATA)
        top.addfile(info, io.BytesIO(DATA))
        return top

    return make


def untarred(data: bytes) -> bytes:
    """What is in such an archive, which has to be complete."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.extractfile("a")
        assert member is not None
        found = member.read()
    if data[:2] != b"\x1f\x8b":
        assert data[-1024:] == bytes(1024)
    return found


def recorded(file: IO[bytes]) -> Any:
    """A sound, whose length is written into its header at its end."""
    top = wave.open(file, "wb")
    top.setnchannels(1)
    top.setsampwidth(1)
    top.setframerate(8000)
    top.writeframesraw(DATA)
    return top


def heard(data: bytes) -> bytes:
    """The frames of a sound."""
    with wave.open(io.BytesIO(data), "rb") as sound:
        return sound.readframes(sound.getnframes())


def unzipped(data: bytes) -> bytes:
    """The member of an archive."""
    return zipfile.ZipFile(io.BytesIO(data)).read("a")


TOPS: dict[str, tuple[Callable[[IO[bytes]], Any], Callable[[bytes], bytes]]] = {
    "text": (text, bytes),
    "gzip": (written(lambda file: gzip.GzipFile(fileobj=file, mode="wb")), gzip.decompress),
    "bz2": (written(lambda file: bz2.BZ2File(file, "wb")), bz2.decompress),
    "lzma": (written(lambda file: lzma.LZMAFile(file, "wb")), lzma.decompress),
    "text in gzip": (text_in_gzip, gzip.decompress),
    "zip": (zipped, unzipped),
    "member of a zip": (zip_member, unzipped),
    "tar": (tarred("w"), untarred),
    "tar.gz": (tarred("w:gz"), untarred),
    "stream of tar.gz": (tarred("w|gz"), untarred),
    "sound": (recorded, heard),
    "somebody's own": (written(Shelved), bytes),
}


@pytest.mark.parametrize("buffering", [-1, 0], ids=["buffered", "raw"])
@pytest.mark.parametrize("name", TOPS)
def test_what_stands_above_an_owned_file_is_closed_first(
    files: FileManager, process: Process, tmp_path: Path, name: str, buffering: int
) -> None:
    """A file was closed beneath the TextIOWrapper, GzipFile, ZipFile above it (cpython#122727)."""
    make, content = TOPS[name]
    path = tmp_path / "file"
    top = make(files.open(process.pid, path, "wb", buffering=buffering))

    result = process.terminate()

    assert str(result).endswith("1 resources freed, 0 bytes freed, 0 errors")
    assert content(path.read_bytes()) == DATA
    del top


@pytest.mark.parametrize("name", TOPS)
def test_what_stands_above_an_adopted_temporary_file_is_closed_first(
    files: FileManager, process: Process, tmp_path: Path, name: str
) -> None:
    """As above, where the file is wrapped itself, and another name of it is kept."""
    make, content = TOPS[name]
    file = files.temporary_file(process.pid, directory=tmp_path)
    kept = tmp_path / "kept"
    kept.hardlink_to(file.name)
    top = make(file)

    assert process.terminate().is_success
    assert content(kept.read_bytes()) == DATA
    del top


@pytest.mark.parametrize("closefd", [True, False])
@pytest.mark.parametrize("name", ["text", "gzip", "zip"])
def test_file_objects_above_an_owned_number_are_closed_first(
    files: FileManager, process: Process, tmp_path: Path, name: str, closefd: bool
) -> None:
    """A file object that had an owned number lost its data, and closed the next to have it."""
    make, content = TOPS[name]
    path = tmp_path / "file"
    fd = files.open_fd(process.pid, path, os.O_RDWR | os.O_CREAT)
    file = open(fd, "wb", closefd=closefd)
    top = make(file)

    result = process.terminate()

    assert str(result).endswith("1 resources freed, 0 bytes freed, 0 errors")
    assert content(path.read_bytes()) == DATA
    assert file.closed
    stranger = os.open(path, os.O_RDONLY)
    assert stranger == fd
    del top, file
    assert is_open(stranger)
    os.close(stranger)


def test_what_stands_above_a_full_disk_is_an_error_that_names_it(
    files: FileManager, process: Process
) -> None:
    """The loss is an error, with what held the data, and the descriptor is closed all the same."""
    file = files.open(process.pid, "/dev/full", "wb")
    fd = file.fileno()
    top = gzip.GzipFile(fileobj=file, mode="wb")
    top.write(DATA)

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "No space left on device" in result.errors[0].message
    assert "in what stands above it, <gzip" in result.errors[0].message
    assert not is_open(fd)
    vars(top)["fileobj"] = None


def test_what_cannot_be_closed_is_an_error_that_names_it(
    files: FileManager, process: Process, tmp_path: Path
) -> None:
    """Whatever a thing above raises: nobody knows what of it has been written."""
    path = tmp_path / "file"
    top = wave.open(files.open(process.pid, path, "wb"), "wb")

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "# channels not specified, in what stands above it, <wave.Wave_write" in str(
        result.errors[0]
    )
    vars(top)["_file"] = None


def test_what_stands_above_two_files_is_closed_by_the_end_of_neither(
    manager: ProcessManager, files: FileManager, tmp_path: Path
) -> None:
    """The other file may be of somebody who lives: what is theirs is not pulled from under them."""
    first, second = manager.create_process("first"), manager.create_process("second")
    top = Twofold(
        files.open(first.pid, tmp_path / "first", "wb"),
        files.open(second.pid, tmp_path / "second", "wb"),
    )
    top.write(DATA)

    assert first.terminate().is_success
    assert top.kept == DATA


def test_what_only_reads_is_left_alone(
    files: FileManager, process: Process, tmp_path: Path
) -> None:
    """Nothing can be lost of it, and its user may be in the middle of a read."""
    path = tmp_path / "file"
    path.write_bytes(b"some lines\n" * 3)
    top = io.TextIOWrapper(files.open(process.pid, path, "rb"))
    writer = csv.writer(files.open(process.pid, tmp_path / "table", "w", newline=""))
    writer.writerow(["a", "b"])

    assert process.terminate().is_success
    assert (tmp_path / "table").read_bytes() == b"a,b\r\n"
    assert top.closed


def test_what_stands_on_a_file_of_the_same_owner_is_adopted_with_it(
    manager: ProcessManager, files: FileManager, process: Process, tmp_path: Path
) -> None:
    """Adopted, it goes with the file, under its id, and is known by itself; nobody else's is."""
    file = files.open(process.pid, tmp_path / "file", "wb")
    top = gzip.GzipFile(fileobj=file, mode="wb")
    top.write(DATA)
    with pytest.raises(AlreadyOwnedError):
        manager.create_process("another").adopt(top)

    resource_id = process.adopt(top)

    assert files.table.find(process.pid, top) == files.table.find(process.pid, file) == resource_id
    files.close(process.pid, file)
    assert gzip.decompress((tmp_path / "file").read_bytes()) == DATA


@pytest.mark.parametrize(
    "make",
    [
        lambda path: zipfile.ZipFile(path, "w"),
        lambda path: tarfile.open(path, "w"),
        lambda path: tarfile.open(path, "w:gz"),
        lambda path: codecs.open(path, "w", "iso2022_jp"),
        lambda path: codecs.getwriter("utf-16")(open(path, "wb")),
        lambda path: codecs.EncodedFile(open(path, "wb"), "utf-8", "iso2022_jp"),
    ],
    ids=["zip", "tar", "tar.gz", "codecs", "StreamWriter", "StreamRecoder"],
)
def test_archives_and_codecs_are_adopted_and_completed(
    process: Process, tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    """What has a file beneath is adopted as one, and what is written is what its `close` writes."""
    for name in ("owned", "alone"):
        (tmp_path / name).mkdir()
    top, alone = make(tmp_path / "owned" / "file"), make(tmp_path / "alone" / "file")
    for each in (top, alone):
        if hasattr(each, "writestr"):
            each.writestr(zipfile.ZipInfo("a"), DATA)
        elif hasattr(each, "addfile"):
            each.addfile(tarfile.TarInfo("a"))
        else:
            each.write("日本".encode() if isinstance(each, codecs.StreamRecoder) else "日本")
    process.adopt(top)
    with pytest.raises(AlreadyOwnedError):
        process.adopt(top)

    result = process.terminate()
    if hasattr(alone, "reset"):
        alone.reset()
    alone.close()

    assert str(result).endswith("1 resources freed, 0 bytes freed, 0 errors")
    got, expected = ((tmp_path / name / "file").read_bytes() for name in ("owned", "alone"))
    if got[:2] == b"\x1f\x8b":
        got, expected = gzip.decompress(got), gzip.decompress(expected)
    assert got == expected


def test_an_archive_whose_descriptor_is_another_s_is_lost_and_says_so(
    process: Process, tmp_path: Path
) -> None:
    """Closed elsewhere, the number is a stranger's, which gets none of it (python-manhole#58)."""
    top = zipfile.ZipFile(tmp_path / "zip", "w")
    top.writestr("a", DATA)
    assert top.fp is not None
    fd = top.fp.fileno()
    process.adopt(top)
    os.close(fd)
    stranger = os.open(tmp_path / "stranger", os.O_CREAT | os.O_RDWR)
    assert stranger == fd

    result = process.terminate()

    assert [error.outcome for error in result.errors] == [Outcome.FAILED]
    assert "somebody else has closed its descriptor" in result.errors[0].message
    del top
    assert is_open(stranger)
    assert os.fstat(stranger).st_size == 0
    os.close(stranger)
