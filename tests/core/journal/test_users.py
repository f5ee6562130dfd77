"""One look at all OS processes serves for many things, and not for ever; nobody escapes it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest

from probate.journal import users
from probate.journal.users import look_again, users_of_file, users_of_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Looks at one that changes its pid all the time.
LOOKS: Final = 200 if os.environ.get("PROBATE_CHAOS") else 5

#: Forks until the other end of its standard input is closed.
GOES_ON: Final = """
import os
os.set_blocking(0, False)
def goes_on():
    try:
        return os.read(0, 1) != b""
    except BlockingIOError:
        return True
print(flush=True)
"""
#: Its child goes on, and so forth, with all that it has open.
HOPPER: Final = f"{GOES_ON}while goes_on():\n    os.fork() and os._exit(0)\n"
#: Its children end at once.
STORM: Final = f"""{GOES_ON}while goes_on():
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
"""


@contextlib.contextmanager
def running(script: str, folder: Path, *pass_fds: int) -> Iterator[None]:
    """Have a script run, in a folder and with these descriptors."""
    argv = [sys.executable, "-SEc", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, cwd=folder, pass_fds=pass_fds) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        yield
        assert popen.stdin is not None
        popen.stdin.close()
        # Until the last of them has ended.
        popen.stdout.read()


@pytest.fixture(autouse=True)
def _look_is_new() -> Iterator[None]:
    look_again()
    yield
    look_again()


@pytest.mark.parametrize("storms", [0, 2], ids=["quiet", "beside forks of others"])
def test_a_user_that_changes_its_pid_all_the_time_is_seen(tmp_path: Path, storms: int) -> None:
    """It is in no listing of processes that still lives when it is looked at.

    What nobody uses is told from that, also while others fork.
    """
    used, unused = tmp_path / "used", tmp_path / "unused"
    for folder in (used, unused):
        folder.mkdir()
        (folder / "file").touch()
    told = []
    with contextlib.ExitStack() as stack:
        with open(used / "file") as file:
            stack.enter_context(running(HOPPER, used, file.fileno()))
        for _ in range(storms):
            stack.enter_context(running(STORM, tmp_path))
        for _ in range(LOOKS):
            look_again()
            told += [
                (users_of_file(0, (folder / "file").stat()), of_folder(folder))
                for folder in (used, unused)
            ]

    assert told[1::2] == [("", "")] * LOOKS
    for of_file, of_its_folder in told[::2]:
        assert of_file.startswith("still in use by ")
        assert of_its_folder.startswith("still in use by ")


def of_folder(folder: Path) -> str:
    """Who uses a folder."""
    pin = os.open(folder, os.O_PATH)
    try:
        return users_of_folder(pin, os.fstat(pin))
    finally:
        os.close(pin)


def test_where_that_cannot_be_told_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is given back then: who uses it may have come and gone, each time unseen."""

    class Untold:
        looked_at = 0
        are_told = False

        def __iter__(self) -> Iterator[list[int]]:
            yield [os.getpid()]

    monkeypatch.setattr(users, "Arrivals", Untold)
    (tmp_path / "file").touch()

    assert "come and go too fast" in users_of_file(0, (tmp_path / "file").stat())
    assert "come and go too fast" in of_folder(tmp_path)


def test_a_look_serves_for_longer_where_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some times as long as it has taken, and no more than two seconds."""
    looks: list[float] = []

    class Slow:
        are_told = True

        def __iter__(self) -> Iterator[list[int]]:
            looks.append(time.monotonic())
            time.sleep(0.3)
            return iter(())

    monkeypatch.setattr(users, "Arrivals", Slow)
    started = time.monotonic()
    while len(looks) < 3:
        users_of_file(0, tmp_path.stat())
        time.sleep(0.01)
    took = time.monotonic() - started

    assert looks[1] - looks[0] >= 5 * 0.3
    # A machine may be busy.
    assert took < 2 * (2.0 + 0.3) + 10
