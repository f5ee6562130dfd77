"""What is taken away by name, in the folders that a run makes things in: see inotify(7).

Whoever makes and removes a file may do so again and again, in turns with others, under one name: a
lock is taken so. What has the name then is not what was noted. The kernel tells in which order.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING, Final, final

from probate.system.clib import libc
from probate.system.making import take

if TYPE_CHECKING:
    from collections.abc import Iterator

_DELETE, _MOVED_FROM, _MOVED_TO, _ONLY_FOLDERS = 0x200, 0x40, 0x80, 0x01000000
_WANTED: Final = _DELETE | _MOVED_FROM | _MOVED_TO | _ONLY_FOLDERS

#: `struct inotify_event`: watch, mask, cookie, and how long the name is, which follows.
_EVENT: Final = struct.Struct("=iIII")
_MOST_BYTES: Final = 1 << 16

#: Folders that are watched at most: there are few for temporary things.
_MOST_FOLDERS: Final = 64


@final
class Deletions:
    """Tells which names are gone, or another's, in the folders that it was told of.

    Not thread-safe. Where the kernel has no more of such watches for this user, or too much happens
    at a time, it tells of nothing.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._folders: dict[int, str] = {}
        self._known: set[str] = set()
        self._pending = array.array("i", [0])

    def watch(self, folder: str) -> None:
        """Tell of a folder from now on."""
        if folder in self._known or len(self._known) >= _MOST_FOLDERS:
            return
        self._known.add(folder)
        try:
            if not self._numbers:
                take(self._numbers, libc().inotify_init1, os.O_NONBLOCK | os.O_CLOEXEC)
            watch: int = libc().inotify_add_watch(
                self._numbers[0], os.fsencode(folder), ctypes.c_uint32(_WANTED)
            )
        except AttributeError:
            # A C library without it.
            return
        if watch >= 0:
            self._folders[watch] = folder

    def gone(self) -> Iterator[str]:
        """Yield the paths of what has been taken away since the last time."""
        while self._folders and self._are_there_more():
            try:
                events = os.read(self._numbers[0], _MOST_BYTES)
            except OSError:
                return
            at = 0
            while at < len(events):
                watch, _, _, length = _EVENT.unpack_from(events, at)
                at += _EVENT.size + length
                if (folder := self._folders.get(watch)) is not None:
                    name = events[at - length : at].rstrip(b"\0")
                    yield f"{folder.rstrip('/')}/{os.fsdecode(name)}"

    def close(self) -> None:
        """Tell of nothing more."""
        self._folders.clear()
        for number in self._numbers:
            if number >= 0:
                os.close(number)
        self._numbers.clear()

    def _are_there_more(self) -> bool:
        fcntl.ioctl(self._numbers[0], termios.FIONREAD, self._pending, True)
        return self._pending[0] > 0
