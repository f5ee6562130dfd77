"""Surroundings in which nobody may look on: what starts a front in them, as a program."""

from __future__ import annotations

import ctypes
import os
import sys

from denied_calls import NUMBERS, deny

from probate.run import filter as filters


def without_seccomp() -> None:
    """The kernel refuses filters."""
    NUMBERS["seccomp"] = 317
    deny("seccomp")


def under_another_listener() -> None:
    """Somebody else looks on already, for calls that nobody makes here."""
    if os.geteuid() != 0:
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
    architecture = filters.native()
    # As long as somebody has the listener.
    os.set_inheritable(filters._install(architecture, filters.program(architecture, [])), True)


def under_a_filter() -> None:
    """All are under a filter, as in a container."""
    if os.geteuid() != 0:
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
    filters._install(filters.native(), filters.program(filters.native(), []))


if __name__ == "__main__":
    ctypes.CDLL(None)
    globals()[sys.argv[1]]()
    os.execvp(sys.argv[2], sys.argv[2:])
