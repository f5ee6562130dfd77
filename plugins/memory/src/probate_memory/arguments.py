"""Sizes, names, keys and modes, checked before anything is acquired; where a name is."""

from __future__ import annotations

import os
import sys
from typing import Final

from probate.system import checked_int

#: The OS process that imported this. In another one, objects may be inherited.
HOME: Final = os.getpid()

#: Where Linux keeps POSIX shared memory, mounted by whatever boots it (shm_overview(7)).
FOLDER: Final = "/dev/shm"  # noqa: S108  no temporary file: names are unguessable or asked for

#: What a file name has at most (NAME_MAX), in bytes; a segment's name is one (shm_overview(7)).
_NAME_MAX: Final = 255

#: `key_t` and segment ids are C ints (sysvipc(7)).
_INT_MAX: Final = 2**31 - 1


def path_of(name: str) -> str:
    """Where the segment of that name is in the file system (shm_overview(7))."""
    return f"{FOLDER}/{name.lstrip('/')}"


def checked_size(size: object) -> int:
    """Return a number of bytes. Raises TypeError, or ValueError unless it is at least 1."""
    return checked_int("a size in bytes", size, least=1, most=sys.maxsize)


def checked_name(name: object) -> str:
    """Return the name of a POSIX segment without the slash that it may begin with.

    Raises TypeError for what is no string, ValueError for what is no file name.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a shared memory must be a string, got {name!r}")
    bare = name.removeprefix("/")
    if bare in {"", ".", ".."} or "/" in bare or "\0" in bare:
        raise ValueError(f"the name of a shared memory is a file name without slashes: {name!r}")
    if len(os.fsencode(bare)) > _NAME_MAX:
        raise ValueError(f"the name of a shared memory has at most {_NAME_MAX} bytes: {name!r}")
    return bare


def checked_key(key: object, *, for_opening: bool = False) -> int:
    """Return the key of a SysV segment. Raises TypeError, or ValueError out of range.

    Key 0 is IPC_PRIVATE: of that key there may be any number of segments, found by id alone.
    Who asks for it by key gets a new one (shmget(2)), so it is no key `for_opening`.
    """
    number = checked_int("the key of a segment", key, least=-_INT_MAX - 1, most=_INT_MAX)
    if for_opening and number == 0:
        raise ValueError("segments of key 0, IPC_PRIVATE, are opened by their id")
    return number


def checked_id(segment_id: object) -> int:
    """Return the id of a SysV segment. Raises TypeError, or ValueError out of range."""
    return checked_int("the id of a segment", segment_id, least=0, most=_INT_MAX)


def checked_mode(mode: object) -> int:
    """Return permission bits. Raises TypeError, or ValueError if there are others in it."""
    return checked_int("permission bits", mode, least=0, most=0o777)
