"""Bare descriptor numbers, of whatever they are of."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
from typing import TYPE_CHECKING, Final

from adoption.case import Trial, case
from adoption.witness import holds, number

if TYPE_CHECKING:
    from adoption.place import Place

NUMBERS: Final = "Descriptor numbers"


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
