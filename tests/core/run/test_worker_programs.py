"""Programs that are libraries' and servers': killed in part or as a whole, or ended normally."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

import psutil
import pytest
from run_fronts import PATIENCE, RunFront, is_alive, wait_for_end, wait_until
from run_programs import PROGRAMS, Program, environment_of
from run_things import remove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate.run.account import RunAccount


def missing(program: Program) -> str:
    """The first module that it needs and that is not installed; empty if all are."""
    return next((each for each in program.modules if not importlib.util.find_spec(each)), "")


def programs() -> list[object]:
    """All of them, and why some cannot be run here."""
    return [
        pytest.param(
            program,
            id=name,
            marks=pytest.mark.skipif(
                bool(missing(program)),
                reason=f"{missing(program)} is not installed: make soak has it",
            ),
        )
        for name, program in PROGRAMS.items()
    ]


only_in_chaos = pytest.mark.skipif(
    "PROBATE_CHAOS" not in os.environ, reason="many heavy programs: make soak"
)
each_program = pytest.mark.parametrize("program", programs())


@final
class AtWork(NamedTuple):
    """A program that is at work: its processes, and what they have made."""

    place: Path
    os_pids: list[int]
    paths: list[str]
    ports: list[int]

    def left(self) -> list[object]:
        """What is there still."""
        processes = [each for each in self.os_pids if is_alive(each)]
        return [*processes, *filter(os.path.lexists, self.paths), *filter(is_open, self.ports)]

    def has_data(self) -> bool:
        """Whether what it was run for is there."""
        data = list(self.place.glob("data*"))
        return bool(data) and all(each.read_text() == "data" for each in data)

    def complaints(self) -> str:
        """What it has written to standard error."""
        return (self.place / "complaints").read_text()

    def go(self) -> None:
        """Let it end."""
        (self.place / "go").write_text("")

    def remove(self) -> None:
        """Remove what is there still, if a test fails."""
        for path in self.paths:
            if path.startswith("/dev/shm"):
                remove(path)


def is_open(port: int) -> bool:
    """Whether anybody listens at a port."""
    return f"0100007F:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


def at_work(program: Program, place: Path, command: int) -> AtWork:
    """Wait until a program is at work."""

    def lines() -> list[str]:
        return (place / "said").read_text().splitlines()

    def is_there() -> bool:
        assert is_alive(command), (place / "complaints").read_text()
        return len(lines()) >= program.lines

    wait_until(is_there)
    said = [json.loads(line) for line in lines()]
    members = [each.pid for each in psutil.Process(command).children(recursive=True)]
    paths = sorted({path for each in said for path in each["paths"]})
    ports = sorted({port for each in said for port in each["ports"]})
    assert all(map(os.path.lexists, paths)), paths
    return AtWork(place, [command, *members], paths, ports)


@contextmanager
def running(
    program: Program, place: Path, state: Path, settle: str = "crash"
) -> Iterator[tuple[RunFront, AtWork]]:
    """Run it by us."""
    inside = place / "inside"
    command = program.prepare(inside)
    environment = environment_of(inside)
    front = RunFront(*command, state=state, environment=environment, cwd=inside, settle=settle)
    with front:
        work = at_work(program, inside, front.command)
        try:
            yield front, work
        finally:
            work.remove()


def kill(front: RunFront, work: AtWork, whom: str) -> RunAccount:
    """Kill the command, or all of the tree in one stroke."""
    os_pids = [front.command] if whom == "main" else work.os_pids
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for each in os_pids:
            with suppress(ProcessLookupError):
                os.kill(each, number)
    return front.account()


@each_program
def test_nothing_is_left_when_its_main_process_is_killed(
    program: Program, tmp_path: Path, place: Path
) -> None:
    """No process, port, shared memory or socket; its data is there."""
    with running(program, place, tmp_path) as (front, work):
        account = kill(front, work, "main")

        assert work.left() == []
        assert work.has_data()
        assert {each.outcome for each in account.settled} == {"released"}


@only_in_chaos
@each_program
@pytest.mark.parametrize("settle", ["crash", "all"])
def test_nothing_is_left_when_all_of_it_is_killed(
    program: Program, tmp_path: Path, place: Path, settle: str
) -> None:
    """Its own clean-up, in a process beside it, has died as well."""
    with running(program, place, tmp_path, settle) as (front, work):
        account = kill(front, work, "tree")

        assert work.left() == []
        assert work.has_data()
        assert {each.outcome for each in account.settled} == {"released"}


@only_in_chaos
@each_program
@pytest.mark.parametrize("settle", ["crash", "all"])
def test_what_cleans_up_by_itself_is_not_raced(
    program: Program, tmp_path: Path, place: Path, settle: str
) -> None:
    """It ends normally, and has nothing to complain of."""
    with running(program, place, tmp_path, settle) as (front, work):
        os.kill(front.command, signal.SIGTERM) if program.is_server else work.go()
        account = front.account()

        assert front.status == 0, work.complaints()
        assert work.left() == []
        assert work.has_data()
        assert "Error" not in work.complaints()
        assert "leaked" not in work.complaints()
        assert [each for each in account.settled if each.outcome != "released"] == []


@only_in_chaos
@each_program
@pytest.mark.parametrize("whom", ["main", "tree"])
def test_the_same_program_outside_is_left_alone(
    program: Program, tmp_path: Path, place: Path, whom: str
) -> None:
    """Of the same user, at the same time, with the same names elsewhere."""
    folder = place / "outside"
    command = program.prepare(folder)
    environment = {**os.environ, **environment_of(folder)}
    outside = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    try:
        other = at_work(program, folder, outside.pid)
        there = other.left()
        with running(program, place, tmp_path, "all") as (front, work):
            kill(front, work, whom)

        assert work.left() == []
        assert other.left() == there
        outside.terminate() if program.is_server else other.go()
        assert outside.wait(PATIENCE) == 0, other.complaints()
        wait_for_end(*other.os_pids)
        assert other.left() == []
    finally:
        with outside, suppress(ProcessLookupError):
            os.killpg(outside.pid, signal.SIGKILL)
