"""A name that several take in turns, and orphans that have shed whatever they could."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from runs import PROBATE

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Makes a lock file and removes it, again and again; waits while somebody else has it.
LOCKS = """
import os, sys, time
print(os.getpid(), flush=True)
while True:
    try:
        os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        time.sleep(0.001)
        continue
    time.sleep(0.002)
    os.unlink(sys.argv[1])
    time.sleep(0.002)
"""

#: Leaves an orphan without tag and environment, as sudo does, and ends.
ORPHAN = """
import os, resource, sys
if os.fork() == 0:
    if os.fork() == 0:
        resource.prlimit(0, 10, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.execve(sys.argv[1], ["sleep", "1000"], {})
    os._exit(0)
os.wait()
"""


@pytest.fixture
def name() -> Iterator[Path]:
    """A name for temporary things, which is free again after the test."""
    path = Path(f"/tmp/probate-test-{secrets.token_hex(8)}")
    yield path
    path.unlink(missing_ok=True)


def start(*command: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROBATE, "run", "--report", "json", "--", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def settled(ran: subprocess.Popen[str]) -> list[dict[str, Any]]:
    _, errors = ran.communicate(timeout=30)
    return [each for each in json.loads(errors)["settled"] if each["kind"] != "processes"]


def test_a_lock_file_that_somebody_else_has_by_now_stays(name: Path) -> None:
    """It has the name, and is as old as what the command made, give or take some milliseconds."""
    for _ in range(3):
        with start(sys.executable, "-S", "-c", LOCKS, name) as ran:
            assert ran.stdout is not None
            command = int(ran.stdout.readline())
            over = time.monotonic() + 20
            while True:
                try:
                    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                    break
                except FileExistsError:
                    assert time.monotonic() < over
                    time.sleep(0.0005)
            ours = name.stat().st_ino
            os.kill(command, signal.SIGKILL)

            assert settled(ran) == []
            assert name.stat().st_ino == ours
        name.unlink()


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_what_somebody_else_has_put_in_its_place_stays(name: Path, seconds: float) -> None:
    """As soon as it was made, and before it was looked at, or after that."""
    with start("sh", "-c", 'mkfifo "$0"; echo made; read x; kill -9 $$', name) as ran:
        assert ran.stdout is not None
        assert ran.stdout.readline() == "made\n"
        time.sleep(seconds)
        name.unlink()
        os.mkfifo(name, 0o600)

        assert settled(ran) == []
        assert name.is_fifo()


def test_what_it_has_made_once_more_is_its_own(name: Path) -> None:
    """The same name, taken away and made again by the command itself: that is given back."""
    script = 'for i in 1 2 3; do rm -f "$0"; mkfifo "$0"; done; echo made; read x; kill -9 $$'
    with start("sh", "-c", script, name) as ran:
        assert ran.stdout is not None
        assert ran.stdout.readline() == "made\n"

        assert [each["outcome"] for each in settled(ran)] == ["released"]
        assert not name.exists()


def test_an_orphan_that_has_shed_tag_and_environment_is_ended() -> None:
    """Its parent was gone before anybody looked; it came to the front, under the run's filter."""
    with start(sys.executable, "-S", "-c", ORPHAN, "/usr/bin/sleep") as ran:
        _, errors = ran.communicate(timeout=50)
    found = json.loads(errors)["settled"]

    assert [each["outcome"] for each in found] == ["released"]
    assert found[0]["description"].endswith("(sleep)")
    with pytest.raises(ProcessLookupError):
        os.kill(found[0]["os_pid"], 0)
