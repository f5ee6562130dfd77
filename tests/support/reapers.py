"""Reapers, and what they become: helpers of hosts, which end by themselves after them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

#: A part of the command line of a reaper.
_REAPER: Final = b"probate/journal/reaper.py"

#: How often a command is looked for where there is none.
_LOOKS: Final = 50


def is_reaper(os_pid: int | str) -> bool:
    """Whether this is a reaper, and runs."""
    return _REAPER in command_of(os_pid)


def is_helper(os_pid: int | str) -> bool:
    """Whether this is a reaper, or the program that settles after its host."""
    for _ in range(_LOOKS):
        if command := command_of(os_pid):
            return _REAPER in command or b"probate.settlement" in command
        if has_ended(os_pid):
            break
        # It is just becoming another program (execve(2)), or ending.
        time.sleep(0.002)
    return False


def reapers_of(host_pid: int) -> set[int]:
    """The OS processes to which a living host has pidfds, and that are reapers."""
    found = set()
    for info in Path(f"/proc/{host_pid}/fdinfo").iterdir():
        # Others come and go meanwhile.
        with suppress(FileNotFoundError):
            for line in info.read_text().splitlines():
                name, _, pid = line.partition(":\t")
                if name == "Pid" and is_reaper(pid.strip()):
                    found.add(int(pid))
    return found


def has_ended(os_pid: int | str) -> bool:
    """Whether it is gone, or a zombie (proc(5))."""
    try:
        stat = Path(f"/proc/{os_pid}/stat").read_bytes()
    except OSError:
        return True
    return stat.rpartition(b")")[2].split()[0] in {b"Z", b"X"}


def command_of(os_pid: int | str) -> bytes:
    """The command line of an OS process; empty if it is gone."""
    try:
        return Path(f"/proc/{os_pid}/cmdline").read_bytes()
    except OSError:
        return b""
