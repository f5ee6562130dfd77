"""Temporary files and folders: removed while what is at their path is still what was made."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import IO, Any, Final, final

from probate import Outcome, RefusedResourceError
from probate.journal import NEW
from probate.system import OwnedDescriptor, TreeRemoval, built, opened
from probate_files.entry import Entry
from probate_files.layers import layers_of
from probate_files.openfile import FileEntry, OpenFile
from probate_files.pinned import PinnedPath

#: Starts the name of what is made without another prefix.
PREFIX: Final = "probate-"


@final
class TemporaryFile(FileEntry):
    """A file object and its path; the path goes even if the file was closed directly."""

    __slots__ = ("_file", "_pin", "_refusal", "is_in_memory", "locks")

    def __init__(self, file: OpenFile, path: str | None) -> None:
        self._file = file
        self.is_in_memory = file.is_in_memory
        self.locks = file.locks
        #: None for a path that is to stay.
        self._pin = None if path is None else _pinned(path, file)
        self._refusal: RefusedResourceError | None = None

    def __repr__(self) -> str:
        return f"temporary {self._file!r}"

    @property
    def native(self) -> object:
        """The file object, or what tempfile wrapped it in."""
        return self._file.native

    @property
    def pin(self) -> PinnedPath | None:
        """What is at the path that goes with it."""
        return self._pin

    @property
    def open_file(self) -> OpenFile:
        """The file: others may have it open, or know it by another name, so it is flushed."""
        return self._file

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """Its own, and what pins its path."""
        pinned = () if self._pin is None else (self._pin.descriptor,)
        return (self._file.descriptor, *pinned)

    def release(self) -> Outcome:
        """Unlink it, while it is open, and close it, as `PinnedPath` and `OpenFile` do."""
        path = self._unlink()
        wrapper = self._file.native
        try:
            file = self._file.release()
        finally:
            if isinstance(wrapper, tempfile._TemporaryFileWrapper):  # noqa: SLF001  its only name
                # It would unlink by bare name when it is closed, whoever's that is then; and
                # unless it is closed, its finaliser warns.
                wrapper._closer.delete = False  # noqa: SLF001  no public way
                wrapper.close()
        if self._refusal is not None:
            raise self._refusal
        return Outcome.RELEASED if Outcome.RELEASED in {path, file} else Outcome.ALREADY_GONE

    def _unlink(self) -> Outcome:
        try:
            return Outcome.ALREADY_GONE if self._pin is None else self._pin.unlink()
        except RefusedResourceError as error:
            # Reported when the file is closed, which it is all the same.
            self._refusal = error
            return Outcome.REFUSED


def _pinned(path: str, file: OpenFile) -> PinnedPath | None:
    """Pin a file's path; None if the file is not there."""
    try:
        pin = PinnedPath(path)
    except FileNotFoundError:
        return None
    found = (pin.status.st_dev, pin.status.st_ino)
    if found == (file.identity.device, file.identity.inode):
        return pin
    pin.close()
    return None


@final
class SpooledFile(Entry):
    """A `SpooledTemporaryFile`: in memory until it is large, then a file without a name."""

    __slots__ = ("_descriptors", "_spooled")

    def __init__(self, spooled: tempfile.SpooledTemporaryFile[Any]) -> None:
        self._spooled = spooled
        layers = layers_of(self._file)
        raw = None if layers is None else layers[-1]
        self._descriptors = () if raw is None else (OwnedDescriptor(raw.fileno(), raw.fileno),)

    def __repr__(self) -> str:
        return f"spooled temporary file {self._spooled!r}"

    @property
    def native(self) -> object:
        """What tempfile has made."""
        return self._spooled

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """Its number, if it had one when it was adopted."""
        return self._descriptors

    def release(self) -> Outcome:
        """Close it. Nobody else can ever see what it holds."""
        if self._spooled.closed:
            return Outcome.ALREADY_GONE
        if layers_of(self._file) is not None:
            return OpenFile(self._file).release()
        self._spooled.close()
        return Outcome.RELEASED

    @property
    def _file(self) -> IO[Any]:
        # Asking it for its fileno() would write it to disk first.
        file: IO[Any] = self._spooled._file  # noqa: SLF001  no public way
        return file


@final
class TemporaryFolder(Entry):
    """A folder that goes with all that is in it."""

    __slots__ = ("_native", "_pin")

    def __init__(self, path: str, native: Path | tempfile.TemporaryDirectory[Any]) -> None:
        self._pin = PinnedPath(path)
        self._native = native

    def __repr__(self) -> str:
        status = self._pin.status
        return f"temporary folder {self._pin.path!r} (inode {status.st_ino})"

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """What pins it."""
        return (self._pin.descriptor,)

    @property
    def pin(self) -> PinnedPath:
        """What is at the path that it was made with."""
        return self._pin

    @property
    def native(self) -> Path | tempfile.TemporaryDirectory[Any]:
        """The path that it was made with, or what tempfile has made."""
        return self._native

    def release(self) -> Outcome:
        """Remove the tree, through no link and across no mount.

        See `PinnedPath.is_in_place`. Raises OSError, and RefusedResourceError for a mount: what is
        mounted is left alone, and the folders above it.
        """
        if isinstance(self._native, tempfile.TemporaryDirectory):
            # It would remove whatever has its name at the interpreter's exit.
            self._native._finalizer.detach()  # type: ignore[attr-defined]  # noqa: SLF001  no public way
        try:
            if not self._pin.is_in_place():
                return Outcome.ALREADY_GONE
            self._remove()
            return Outcome.RELEASED
        finally:
            self._pin.close()

    def _remove(self) -> None:
        # Relative to the pinned folder, so that it cannot be swapped for another on the way.
        removal = TreeRemoval()
        is_empty = removal.empty(self._pin.open(os.O_RDONLY | os.O_DIRECTORY))
        if removal.mounts:
            raise RefusedResourceError(
                f"left alone, as something is mounted in it: unmount {', '.join(removal.mounts)}, "
                "then remove the folder"
            )
        if removal.errors:
            raise removal.errors[0]
        if is_empty and self._pin.is_in_place():
            os.rmdir(self._pin.path)  # noqa: PTH106  as lstat, on the same string


def make_file(
    path: str,
    mode: str,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
) -> TemporaryFile:
    """Make a temporary file, readable by its user only, and open it.

    Raises OSError, FileExistsError included.
    """

    def build(fd: OwnedDescriptor) -> TemporaryFile:
        opening = partial(
            open, path, mode, buffering, encoding, errors, newline, opener=lambda *_: fd.number
        )
        made = partial(built, opening, OpenFile, methodcaller("close"))
        return built(made, lambda file: TemporaryFile(file, path), OpenFile.release)

    return opened(partial(os.open, path, NEW, 0o600), build, partial(os.unlink, path))


def make_folder(path: str) -> TemporaryFolder:
    """Make a temporary folder, accessible to its user only. Raises as `make_file` does."""
    return built(
        partial(os.mkdir, path, 0o700),
        lambda _: TemporaryFolder(path, Path(path)),
        lambda _: os.rmdir(path),  # noqa: PTH106  the same string
    )
