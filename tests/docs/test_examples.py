"""The examples do what they are there to show, also when something is killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import leak_sessions
import processes_kernel as kernel
import pytest
from documents import REPOSITORY
from reapers import command_of
from shells import CTRL_C, PROMPT, Shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLES = REPOSITORY / "examples"

#: A worker that starts a daemon, which nothing but its end would end.
FAMILY = ("sh", "-c", "(setsid sleep 300 &); exec sleep 300")


class Example:
    """One of them, as it runs; whatever it has left is killed in the end."""

    def __init__(self, mark: str, name: str, *arguments: str) -> None:
        self.mark = mark
        self._popen = subprocess.Popen(
            [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, kernel.MARK: mark},
        )
        self.pid = self._popen.pid

    def until(self, start: str) -> str:
        """Wait for a line that starts so; return the rest of it."""
        assert self._popen.stdout is not None
        said = []
        for line in self._popen.stdout:
            if line.startswith(start):
                return line.removeprefix(start).strip()
            said.append(line)
        pytest.fail(f"never said {start!r}, but {said}; {self.end()}")

    def end(self) -> tuple[int, list[str], str]:
        """Wait for its end: return code, what it had left to say, and complaints."""
        try:
            out, errors = self._popen.communicate(timeout=50)
        except subprocess.TimeoutExpired:
            pytest.fail(f"never ended; there are {kernel.kill_all(self.mark)}")
        return self._popen.returncode, out.splitlines(), errors

    def kill(self) -> None:
        self._popen.kill()
        with self._popen:
            kernel.kill_all(self.mark)


@pytest.fixture
def mark(tmp_path: Path) -> str:
    """By which all that a test starts is known."""
    return str(tmp_path)


@pytest.fixture
def start(mark: str) -> Iterator[Callable[..., Example]]:
    """Starts examples."""
    started: list[Example] = []

    def start_one(name: str, *arguments: str) -> Example:
        started.append(Example(mark, name, *arguments))
        return started[-1]

    yield start_one
    for example in started:
        example.kill()


def sleepers(mark: str) -> set[int]:
    """The marked processes that have got as far as to sleep."""
    return {os_pid for os_pid in kernel.marked(mark) if command_of(os_pid).startswith(b"sleep\0")}


def mapped_segments(os_pid: int) -> set[Path]:
    """The POSIX shared memory that an OS process has mapped, and that has a name."""
    maps = Path(f"/proc/{os_pid}/maps").read_text()
    return {Path(path) for path in re.findall(r"/dev/shm/\S+(?=\n)", maps)}


def test_every_example_is_tested() -> None:
    """None is forgotten here, and none is longer than one takes in at a glance."""
    text = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text
        assert len(path.read_text().splitlines()) < 80


# -- a pool --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_pool_replaces_a_worker_with_all_that_it_had(
    start: Callable[..., Example], mark: str, number: signal.Signals
) -> None:
    """The daemon of the one that was killed is gone first; the other one's lives until the end."""
    pool = start("pool.py", "2", *FAMILY)
    first, second = (int(pool.until(f"worker-{n} runs as ")) for n in (0, 1))
    workers = {first, second}
    kernel.eventually(lambda: len(sleepers(mark) - workers) == 2, "both have their daemons")
    daemons = sleepers(mark) - workers
    os.kill(first, signal.SIGKILL)
    ended = pool.until("worker-0 ended with -9; ")
    third = int(pool.until("worker-0 runs as "))

    assert ended == "PID 1 cleanup: 1 resources freed, 0 bytes freed, 0 errors"
    assert sum(map(kernel.lives, daemons)) == 1
    assert kernel.lives(second)

    kernel.eventually(lambda: len(sleepers(mark)) == 4, "the third has a daemon, too")
    assert kernel.lives(third)
    os.kill(pool.pid, number)
    code, _, errors = pool.end()

    assert (code, errors) == (-number, "")
    assert kernel.marked(mark) == set()


def test_the_pool_gives_up_where_all_die_at_once(start: Callable[..., Example]) -> None:
    """Instead of starting what does not run for ever."""
    code, lines, errors = start("pool.py", "2", "false").end()

    assert code == 1
    assert len([line for line in lines if " runs as " in line]) == 6
    assert errors == "5 workers have died within 10 s: giving up\n"


# -- agents --------------------------------------------------------------------


def test_agents_end_at_their_limits_and_when_they_are_told_to(
    start: Callable[..., Example],
) -> None:
    """What is refused is said by the error, what the kernel ended by its signal."""
    code, lines, errors = start("agents.py").end()

    assert (code, errors) == (0, "")
    assert sorted(line for line in lines if " cleanup: " in line) == [
        "busy: PID 3 cleanup: 0 resources freed, 0 bytes freed, 0 errors",
        "greedy: PID 2 cleanup: 8 resources freed, 8388608 bytes freed, 0 errors",
        "patient: PID 1 cleanup: 2 resources freed, 0 bytes freed, 0 errors",
    ]
    assert any(line.startswith("greedy: memory: process 2 holds 8388608 of at") for line in lines)
    assert "busy: its program was ended by SIGXCPU" in lines


def test_agents_end_with_their_host(start: Callable[..., Example], mark: str) -> None:
    """A SIGTERM in the midst of it leaves no program of theirs."""
    host = start("agents.py")
    host.until("patient: serves")
    os.kill(host.pid, signal.SIGTERM)
    code, _, errors = host.end()

    assert (code, errors) == (-signal.SIGTERM, "")
    assert kernel.marked(mark) == set()


# -- a loader ------------------------------------------------------------------


@pytest.fixture
def loader(start: Callable[..., Example]) -> Iterator[Example]:
    """The loader, at work."""
    pytest.importorskip("numpy")
    loader = start("loader.py", "1000000")
    loader.until("batch 3: ")
    segments = mapped_segments(loader.pid)
    yield loader
    for path in segments:
        path.unlink(missing_ok=True)


def test_the_loader_gives_back_its_memory(start: Callable[..., Example]) -> None:
    """All batches come, in order, and are what they are each time; three slots are freed."""
    pytest.importorskip("numpy")
    code, lines, errors = start("loader.py").end()

    assert (code, errors) == (0, "")
    assert [line.split(":")[0] for line in lines[:-1]] == [f"batch {n}" for n in range(6)]
    assert lines[0] == "batch 0: +0.0079"
    assert re.fullmatch(
        r"PID 1 cleanup: \d+ resources freed, 602112 bytes freed, 0 errors", lines[-1]
    )


def test_the_loader_replaces_a_worker_and_leaves_nothing_when_it_is_killed(
    loader: Example, mark: str
) -> None:
    """Another one fills the slot, and all goes on; at the end the reaper gives back all."""
    workers = [pid for pid in kernel.marked(mark) if mapped_segments(pid) and pid != loader.pid]
    os.kill(min(workers), signal.SIGKILL)
    loader.until("a worker had died")
    following = int(loader.until("batch ").partition(":")[0])
    for number in range(following + 1, following + 4):
        loader.until(f"batch {number}: ")

    check_that_it_leaves_nothing(loader, mark, signal.SIGKILL)


def test_the_loader_leaves_nothing_when_it_is_told_to_stop(loader: Example, mark: str) -> None:
    """Whatever its workers, and it itself, are in the midst of."""
    check_that_it_leaves_nothing(loader, mark, signal.SIGTERM)


def check_that_it_leaves_nothing(loader: Example, mark: str, number: signal.Signals) -> None:
    """Its workers end by this signal to it, and no segment stays in /dev/shm."""
    segments = mapped_segments(loader.pid)
    assert len(segments) == 3
    assert all(path.exists() for path in segments)
    os.kill(loader.pid, number)
    code, _, _ = loader.end()

    assert code == -number
    kernel.eventually(lambda: not kernel.marked(mark), "its workers are gone", timeout=40)
    kernel.eventually(lambda: not any(path.exists() for path in segments), "so are its segments")


# -- a test suite --------------------------------------------------------------


def test_the_suite_leaves_nothing(tmp_path: Path) -> None:
    """So it says, with all that looks for leaks."""
    shutil.copy(EXAMPLES / "test_shout.py", tmp_path)
    session = leak_sessions.run(tmp_path)

    assert session.counts == {"passed": 3}, session.output


def test_the_suite_is_told_what_it_leaves(tmp_path: Path) -> None:
    """Without the last lines of the fixture, and the server's `with`."""
    text = (EXAMPLES / "test_shout.py").read_text()
    for line in ("server.shutdown()", "thread.join()"):
        assert text.count(line) == 1
        text = text.replace(line, "pass")
    text = text.replace("args=(0.05,)", "args=(0.05,), daemon=True")
    (tmp_path / "test_it.py").write_text(text)
    session = leak_sessions.run(tmp_path, "-k", "shouts")

    assert "daemon thread 'Thread-" in session.left["test_it_shouts"]
    assert session.returncode == 1


# -- jobs ----------------------------------------------------------------------


def test_jobs_are_run_some_at_a_time(start: Callable[..., Example], tmp_path: Path) -> None:
    """Never more than asked for; it fails if any of them has."""
    script = tmp_path / "job"
    script.write_text("test $(ls -d running.* | wc -l) -lt 2 && >running.$1 && rm running.$1")
    jobs = [f"cd {tmp_path}; sh job {number} 2>/dev/null" for number in range(4)]
    code, lines, errors = start("jobs.py", *jobs, "exit 3", "kill -9 $$").end()

    assert (code, errors) == (1, "")
    assert sorted(lines[:-1]) == sorted(
        [*(f"done: {job}" for job in jobs), "failed (-9): kill -9 $$", "failed (3): exit 3"]
    )
    assert lines[-1].endswith("6/6")


@pytest.fixture
def shell(mark: str, tmp_path: Path) -> Iterator[Shell]:
    """A shell at a terminal, all of whose jobs are gone in the end."""
    with Shell("sh", "-i", cwd=tmp_path, env={kernel.MARK: mark, "TERM": "dumb"}) as shell:
        yield shell
        others = kernel.marked(mark) - {shell.shell.pid}
    kernel.kill_all(mark)

    assert others == set()


def run_jobs(shell: Shell, at: Path, job: str, line: str = "{}") -> None:
    """Have the shell run a job that says in a file when it is ready, and one that ends."""
    said = at / "said"
    command = f"{sys.executable} {EXAMPLES}/jobs.py '{job} echo ready >>{said}; wait' true"
    shell.type(line.format(command) + "\n")
    shell.until("done: true")
    kernel.words(said)


def test_ctrl_c_ends_the_jobs(shell: Shell, tmp_path: Path) -> None:
    """And the loop that it is in, by the same signal, without a traceback; daemons of jobs end."""
    run_jobs(shell, tmp_path, "(setsid sleep 300 &); sleep 300 &", "for n in 1 2; do {}; done")
    shell.type(CTRL_C)
    shell.until("failed (-15): (setsid")
    said = shell.until(PROMPT)

    assert "Traceback" not in said
    assert kernel.words(tmp_path / "said") == ["ready"]
    assert shell.status() == 128 + signal.SIGINT


def test_a_second_ctrl_c_kills_them(shell: Shell, tmp_path: Path) -> None:
    """Whoever is deaf to being asked is not waited for."""
    said = tmp_path / "said"
    run_jobs(
        shell, tmp_path, f'trap "echo asked >>{said}; while :; do sleep 1; done" TERM; sleep 300 &'
    )
    shell.type(CTRL_C)
    kernel.words(said, 2)
    shell.type(CTRL_C)
    shell.until("failed (-9): trap")
    shell.until(PROMPT)

    assert shell.status() == 128 + signal.SIGINT


# -- and a program -------------------------------------------------------------


def test_the_parts_of_a_termination_are_found() -> None:
    """`benchmarks/parts.py` names functions; one that is renamed would end it with a traceback."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", REPOSITORY / "benchmarks/parts.py", "3"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "terminate_process" in ran.stdout
