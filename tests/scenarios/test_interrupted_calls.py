"""A signal handler that raises, at any moment of a call: a thing is owned, or it is not there.

So does Ctrl-C, or the alarm of a test runner. Between a system call and the note of what it has
returned are steps of Python, in which handlers run.
"""

from __future__ import annotations

import os
import random
import signal
import socket
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final

import pytest
from memory_kernel import own_sysv_segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate import ProcessManager

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    pytest.mark.timeout(60, method="thread"),  # the other takes the alarm
    # What falls into the callback of a weak reference, Python prints, and drops.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROUNDS: Final = 1500 if os.environ.get("PROBATE_CHAOS") else 60
#: Seconds until it is interrupted, at most.
SOON: Final = 0.0015


class InterruptError(Exception):
    """What the handler raises."""


class Alarm:
    """Interrupts what is done within it, once, at some moment, if it takes long enough."""

    def __init__(self) -> None:
        self._is_armed = False
        self.count = 0

    def ring(self, *_: object) -> None:
        if self._is_armed:
            self._is_armed = False
            raise InterruptError

    def during(self, call: Callable[[], object]) -> None:
        """Make a call, and set it off meanwhile."""
        try:
            self._is_armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, SOON))
            call()
            self._is_armed = False
        except InterruptError:
            self.count += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    alarm = Alarm()
    before = signal.signal(signal.SIGALRM, alarm.ring)
    try:
        yield alarm
    finally:
        signal.signal(signal.SIGALRM, before)


MAKERS: Final[dict[str, Callable[[Any, int, str], object]]] = {
    "pipe": lambda kinds, pid, _: kinds["ipc"].manager.pipe(pid),
    "connections": lambda kinds, pid, _: kinds["ipc"].manager.connection_pair(pid),
    "POSIX queue": lambda kinds, pid, _: kinds["ipc"].manager.create_posix_queue(
        pid, max_messages=1, max_message_size=16
    ),
    "POSIX semaphore": lambda kinds, pid, _: kinds["ipc"].manager.create_posix_semaphore(pid),
    "memfd": lambda kinds, pid, _: kinds["files"].manager.memfd(pid),
    "descriptor": lambda kinds, pid, _: kinds["files"].manager.open_fd(pid, os.devnull),
    "file": lambda kinds, pid, _: kinds["files"].manager.open(pid, os.devnull),
    "temporary file": lambda kinds, pid, folder: kinds["files"].manager.temporary_file(
        pid, directory=folder
    ),
    "temporary folder": lambda kinds, pid, folder: kinds["files"].manager.temporary_directory(
        pid, directory=folder
    ),
    "FIFO": lambda kinds, pid, folder: kinds["files"].manager.mkfifo(
        pid, f"{folder}/{random.random()}"
    ),
    "segment": lambda kinds, pid, _: kinds["memory"].manager.create_shared_memory(pid, size=4096),
    "SysV segment": lambda kinds, pid, _: kinds["memory"].manager.create_segment(pid, 4096),
    "map": lambda kinds, pid, folder: kinds["mmap"].manager.map_temporary(
        pid, 4096, directory=folder
    ),
    "UDP socket": lambda kinds, pid, _: kinds["sockets"].manager.bind_udp(pid, ("127.0.0.1", 0)),
    "unix socket": lambda kinds, pid, folder: kinds["sockets"].manager.listen_unix(
        pid, f"{folder}/{random.random()}"
    ),
    "ring": lambda kinds, pid, _: kinds["rings"].zerocopy.create_ring(pid, slots=1, block_size=64),
}


@pytest.mark.parametrize("what", MAKERS)
def test_what_is_made_is_owned_or_is_not_there(
    manager: ProcessManager, alarm: Alarm, tmp_path: Path, what: str
) -> None:
    """Nor has the owner's end anything to complain of."""
    kinds, make = manager.orchestrator, MAKERS[what]
    folder = tmp_path / "things"
    folder.mkdir()
    before = own_sysv_segments()
    errors: list[object] = []
    # What is imported at the first time is no matter of ours.
    first = manager.create_process("first")
    make(kinds, first.pid, str(folder))
    first.terminate()
    for _ in range(ROUNDS):
        process = manager.create_process("interrupted")
        alarm.during(partial(list, starmap(make, [(kinds, process.pid, str(folder))] * 100)))
        errors += process.terminate().errors

        assert list(folder.iterdir()) == []
        assert own_sysv_segments() == before

    assert errors == []
    assert alarm.count > ROUNDS // 10


def test_sockets_are_closed_whatever_falls_into_their_owners_end(
    manager: ProcessManager, alarm: Alarm
) -> None:
    """An exception comes into the release of one: that is closed all the same, as all others."""
    for _ in range(ROUNDS):
        process = manager.create_process("interrupted")
        sockets = [socket.socket(type=random.choice([1, 2])) for _ in range(80)]
        for each in sockets:
            process.adopt(each)
        alarm.during(process.terminate)
        # Unless it was interrupted before it had begun, that has been done.
        process.terminate()

        assert [each.fileno() for each in sockets] == [-1] * len(sockets)

    assert alarm.count > ROUNDS // 10


def test_what_is_given_back_is_released_or_still_owned(
    manager: ProcessManager, alarm: Alarm
) -> None:
    """The owner's end calls what was not called."""
    for _ in range(ROUNDS):
        process = manager.create_process("interrupted")
        called: list[int] = []
        things = [object() for _ in range(200)]
        for number, thing in enumerate(things):
            process.adopt(thing, release=partial(called.append, number))
        alarm.during(partial(list, map(process.give_back, things)))
        process.terminate()

        assert set(called) == set(range(len(things)))

    assert alarm.count > ROUNDS // 10
