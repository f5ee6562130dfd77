"""What a tree has in /dev/shm: its resource trackers unlink it, and what stays is named."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import processes_kernel as kernel
import pytest
from processes_kernel import pids_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import ProcessManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

SHM = Path("/dev/shm")

#: Owns shared memory; with "deaf" it cannot be asked to stop. Writes the names into $1.
WORKER = """
import os, signal, sys, time
from multiprocessing import shared_memory
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
made = [shared_memory.SharedMemory(create=True, size=4096) for _ in range(3)]
with open(sys.argv[1], "w") as file:
    file.writelines(each.name + "\\n" for each in made)
time.sleep(300)
"""


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Path]:
    """Where a worker writes the names of what it has made; what stays of it is unlinked."""
    yield tmp_path / "names"
    for name in (tmp_path / "names").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            (SHM / name).unlink()


def left(names: Path) -> list[str]:
    return [name for name in names.read_text().split() if (SHM / name).exists()]


@pytest.mark.parametrize(("grace", "manner"), [(30, "obeys"), (0.2, "deaf"), (0, "obeys")])
def test_resource_trackers_go_last(
    manager: ProcessManager, names: Path, grace: float, manner: str
) -> None:
    """Killed at one stroke with whom it serves, it unlinks nothing (sglang#28089, vllm#54002).

    It gets its time, by force too: nothing stays.
    """
    stderr = (names.parent / "stderr").open("w")
    with stderr:
        process = manager.spawn([sys.executable, "-c", WORKER, str(names), manner], stderr=stderr)
    assert len(kernel.words(names, 3)) == 3
    since = time.monotonic()
    result = process.terminate(grace)

    assert left(names) == []
    assert time.monotonic() - since < 25
    assert result.is_success
    assert result.notes == ()


#: Holds one end of a pipe and starts a tracker, by its program ($2) and code ($3), that reads the
#: other end.
CLIENT = """
import os, subprocess, sys, time
reader, writer = os.pipe()
argv = [sys.argv[2], "-c", sys.argv[3] % reader, sys.argv[1]]
subprocess.Popen(argv, pass_fds=[reader], start_new_session=True)
os.close(reader)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
time.sleep(300)
"""
#: A tracker's work: it ends when all are dead, some time later, and says so in $1.
TRACK = """
import os, sys, time
def main(fd):
    with open(sys.argv[1], "a") as file:
        print(os.getpid(), file=file, flush=True)
        os.read(fd, 1)
        {work}
        print("done", file=file)
"""


def tracked(tmp_path: Path, whose: str, work: str = "time.sleep(0.2)") -> list[str]:
    """A program with a tracker as loky or torch starts it."""
    module = "work" if whose == "torch" else "joblib.externals.loky.backend.resource_tracker"
    home = tmp_path / "home"
    folder = home.joinpath(*module.split(".")[:-1])
    folder.mkdir(parents=True)
    (folder / f"{module.rpartition('.')[2]}.py").write_text(TRACK.format(work=work))
    program = home / ("torch_shm_manager" if whose == "torch" else "python")
    program.symlink_to(sys.executable)
    start = f"import sys; sys.path.insert(0, {str(home)!r}); sys.path_importer_cache.clear(); "
    code = f"{start}from {module} import main;main(%d)"
    return [sys.executable, "-SEc", CLIENT, str(tmp_path / "said"), str(program), code]


@pytest.mark.parametrize("grace", [0, 30])
@pytest.mark.parametrize("whose", ["loky", "torch"])
def test_those_of_others_are_known_too(
    manager: ProcessManager, tmp_path: Path, whose: str, grace: float
) -> None:
    """By what they are started to do: joblib#721, and torch's manager of shared memory.

    They are not even asked to stop, which not all of them ignore.
    """
    process = manager.spawn(tracked(tmp_path, whose))
    (tracker,) = pids_in(tmp_path / "said")
    result = process.terminate(grace)

    assert (tmp_path / "said").read_text() == f"{tracker}\ndone\n"
    assert result.is_success
    assert not kernel.lives(tracker)


@pytest.mark.parametrize("grace", [0, 0.2])
def test_one_that_does_not_end_is_killed(
    manager: ProcessManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    """It gets its time and no more, whatever it calls itself."""
    monkeypatch.setattr("probate_processes.killing._TRACKER_TIME", 0.1)
    process = manager.spawn(tracked(tmp_path, "loky", work="time.sleep(300)"))
    (tracker,) = pids_in(tmp_path / "said")
    result = process.terminate(grace)

    assert (tmp_path / "said").read_text() == f"{tracker}\n"
    assert result.is_success
    assert not kernel.lives(tracker)


#: Makes files in /dev/shm and maps them, tracked by nobody; the host's, too, whose name is in $2.
MAPPER = """
import mmap, os, sys, time
made = [f"probate-test-{os.getpid()}-{number}" for number in range(int(sys.argv[3]))]
kept = []
for name in [*made, *filter(None, [sys.argv[2]])]:
    fd = os.open(f"/dev/shm/{name}", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 4096)
    kept.append(mmap.mmap(fd, 4096))
    os.close(fd)
os.unlink(f"/dev/shm/{made[0]}")
with open(sys.argv[1], "w") as file:
    file.writelines(name + "\\n" for name in made)
time.sleep(300)
"""


@pytest.mark.parametrize("end", ["terminate", "killed leader"])
def test_what_stays_is_named(manager: ProcessManager, names: Path, end: str) -> None:
    """In a note, and no more than is known: not what was unlinked, nor what this host has mapped.

    It is no error. (vllm#54002: /dev/shm full of names that nobody knew of.)
    """
    ours = f"probate-test-{os.getpid()}-ours"
    with (SHM / ours).open("w+b") as file:
        file.truncate(4096)
        mapping = mmap.mmap(file.fileno(), 4096)
    try:
        mapper = [sys.executable, "-SEc", MAPPER, str(names), ours, "3"]
        if end == "terminate":
            process = manager.spawn(mapper)
        else:
            process = manager.spawn(["sh", "-c", 'setsid "$@" & exec sleep 300', "sh", *mapper])
        _, *stay = sorted(kernel.words(names, 3))
        if end == "terminate":
            result = process.terminate(0)
        else:
            process.send_signal(9)
            result = manager.wait(process.pid, 15)
    finally:
        mapping.close()
        (SHM / ours).unlink()

    (note,) = result.notes
    assert f"what stays: /dev/shm/{stay[0]}, /dev/shm/{stay[1]}" == note[note.index("what") :]
    assert note.startswith(f"OS process {process.os_pid} ")
    assert result.is_success
    assert left(names) == stay


def test_many_that_stay_are_counted(manager: ProcessManager, names: Path) -> None:
    """A note has an end."""
    process = manager.spawn([sys.executable, "-SEc", MAPPER, str(names), "", "31"])
    kernel.words(names, 31)
    (note,) = process.terminate(0).notes

    assert note.endswith(" and 10 more")
    assert note.count("/dev/shm/") == 20
