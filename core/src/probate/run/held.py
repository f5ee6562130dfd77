"""Ordinary files that those who are left of a run hold: locked, or mapped to be written to.

They are never removed, since nobody can know what they are; but a lock file or the backing of a
map that was made in the run, and that its processes still held when they were ended, is told of.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from probate.journal.handles import birth_time
from probate.run.account import SettledThing
from probate.system.filemaps import file_maps
from probate.system.osprocess import read_proc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PIN: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_DELETED: Final = " (deleted)"


def held_files(members: Iterable[int], since: int) -> dict[str, tuple[int, str]]:
    """Return who holds which files that were made since then, in ns since the epoch, and how."""
    found: dict[str, tuple[int, str]] = {}
    for os_pid in members:
        with suppress(OSError):
            for path in _locked(os_pid):
                found.setdefault(path, (os_pid, "locked"))
        with suppress(OSError):
            for path in _mapped(os_pid):
                found.setdefault(path, (os_pid, "mapped"))
    return {path: how for path, how in found.items() if _is_file_since(path, since)}


def things_held(held: dict[str, tuple[int, str]], known: Iterable[str]) -> Iterator[SettledThing]:
    """Tell of the files that are there still, but for those that something is known of."""
    told = set(known)
    for path, (os_pid, how) in held.items():
        if path not in told and os.path.lexists(path):
            text = f"{how} by it when it was ended, but an ordinary file, which is only reported"
            yield SettledThing("files", f"file {path}", os_pid, "held", "refused", text)


def _locked(os_pid: int) -> Iterator[str]:
    """Yield the files that an OS process has locked (proc(5), /proc/PID/fdinfo)."""
    for number in os.listdir(f"/proc/{os_pid}/fd"):  # noqa: PTH208  names are what is needed
        with suppress(OSError):
            if b"\nlock:" in read_proc(f"/proc/{os_pid}/fdinfo/{number}"):
                yield os.readlink(f"/proc/{os_pid}/fd/{number}")


def _mapped(os_pid: int) -> Iterator[str]:
    """Yield the files that it has mapped, shared and to be written to."""
    for each in file_maps(os_pid):
        if each.is_shared and each.is_writable:
            yield each.path


def _is_file_since(path: str, since: int) -> bool:
    if not path.startswith("/") or path.endswith(_DELETED):
        return False
    try:
        pin = os.open(path, _PIN)
    except OSError:
        return False
    try:
        born = birth_time(pin)
        return stat.S_ISREG(os.fstat(pin).st_mode) and born is not None and born >= since
    finally:
        os.close(pin)
