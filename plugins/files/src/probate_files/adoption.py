"""What was made elsewhere, and is ours to release."""

from __future__ import annotations

import enum
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any, cast

from probate_files.arguments import STANDARD, descriptor_of, has_closed
from probate_files.descriptor import Descriptor
from probate_files.layers import is_layer, layers_of
from probate_files.library import library_entry
from probate_files.openfile import OpenFile
from probate_files.temporary import SpooledFile, TemporaryFile, TemporaryFolder

if TYPE_CHECKING:
    import sqlite3

    from probate_files.entry import Entry


def entry_for(resource: Any) -> Entry | None:
    """The entry for an object of this kind, None for any other.

    Ours are descriptors, as plain ints; what ends in an `io.FileIO`, be it a file object, a file
    of gzip, bz2, lzma or codecs, a zip or a tar archive; what `tempfile` makes; SQLite
    connections; and locks and files of libraries, see `library`. A socket's `makefile` ends in
    the socket and is left to it; a file in memory has nothing to release. Raises ValueError for
    what is closed, and for the host's standard streams.
    """
    if isinstance(resource, (bool, enum.Enum)):
        # A truth or a signal number is no descriptor, whatever number it is.
        return None
    if isinstance(resource, int):
        return adopted_descriptor(resource)
    if isinstance(resource, tempfile.TemporaryDirectory):
        return TemporaryFolder(os.path.abspath(os.fsdecode(resource.name)), resource)  # noqa: PTH100  as in arguments
    if isinstance(resource, tempfile.SpooledTemporaryFile):
        _refuse_closed(resource)
        return SpooledFile(resource)
    if isinstance(resource, tempfile._TemporaryFileWrapper):  # noqa: SLF001  there is no other name
        file = _open_file(resource.file, resource)
        is_temporary = resource._closer.delete  # noqa: SLF001  no public way
        return file and TemporaryFile(file, file.path if is_temporary else None)
    # Who has a connection has imported its module, which takes a while.
    if isinstance(resource, getattr(sys.modules.get("sqlite3"), "Connection", ())):
        from probate_files.database import Database

        return Database(cast("sqlite3.Connection", resource))
    return _open_file(resource, resource) or library_entry(resource)


def adopted_descriptor(fd: int) -> Descriptor:
    """The entry for a descriptor number. Raises ValueError as `entry_for` does."""
    _refuse_standard(fd)
    try:
        return Descriptor(descriptor_of(fd))
    except ValueError as error:
        raise ValueError(f"{error}; an OS process is adopted as psutil.Process(pid)") from None


def _open_file(file: object, native: object) -> OpenFile | None:
    if any(file is stream for stream in _standard_streams()):
        raise ValueError(f"a standard stream of the host is never one process's: {file!r}")
    if not is_layer(file):
        return None
    _refuse_closed(file)
    layers = layers_of(file)
    if layers is None:
        return None
    _refuse_standard(layers[-1].fileno())
    descriptor_of(layers[-1])
    return OpenFile(file, native)


def _refuse_standard(fd: int) -> None:
    if fd in STANDARD:
        raise ValueError(
            f"descriptor {fd} is the host's {STANDARD[fd]} and never one process's: "
            "duplicate it, and have the duplicate owned"
        )


def _refuse_closed(file: object) -> None:
    if has_closed(file):
        raise ValueError(f"a closed file cannot be adopted: {file!r}")


def _standard_streams() -> tuple[object, ...]:
    return (
        sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__,
    )  # fmt: skip
