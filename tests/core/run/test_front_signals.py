"""A signal comes to the command once, whoever sends it, and to whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import signals_seen
from runs import bare_and_run

if TYPE_CHECKING:
    from collections.abc import Callable

SEEN = (sys.executable, "-S", str(Path(signals_seen.__file__)))


def seen_by(
    prefix: tuple[str, ...],
    command: tuple[str, ...],
    act: Callable[[int, Callable[[], str]], object],
    *,
    before: Callable[[], object] | None = None,
) -> list[str]:
    """The signals that the command has seen when `act` was called with the pid that we see.

    And with a function that waits for the next of them, and returns its name on a line.
    """
    with subprocess.Popen(
        [*prefix, *command],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=before,  # noqa: PLW1509  no threads
    ) as ran:
        try:
            assert ran.stdout is not None
            assert ran.stdout.readline().startswith("looking ")
            act(ran.pid, ran.stdout.readline)
            # What came before it is passed on before it.
            os.kill(ran.pid, signal.SIGRTMAX)
            *seen, over = ran.stdout.read().splitlines()
        finally:
            if ran.poll() is None:
                os.killpg(ran.pid, signal.SIGKILL)

    assert over == "over"
    return seen


NAMES = ["TERM", "HUP", "INT", "QUIT", "USR1", "ALRM", "ABRT", "SEGV", "WINCH", "CONT", "TSTP"]


@bare_and_run
@pytest.mark.parametrize("name", [*NAMES, "URG", "PIPE", "RTMIN"])
def test_a_signal_to_the_pid_that_is_seen(prefix: tuple[str, ...], name: str) -> None:
    """It is the command's."""
    number = getattr(signal, f"SIG{name}")

    assert seen_by(prefix, SEEN, lambda pid, _: os.kill(pid, number)) == [f"SIG{name}"]


@bare_and_run
@pytest.mark.parametrize("name", NAMES)
def test_a_signal_to_the_whole_group(prefix: tuple[str, ...], name: str) -> None:
    """As of `kill %1`: the command has it already, and is not told twice."""
    number = getattr(signal, f"SIG{name}")

    assert seen_by(prefix, SEEN, lambda pid, _: os.killpg(pid, number)) == [f"SIG{name}"]


@bare_and_run
def test_one_to_the_group_and_one_to_the_pid_are_two(prefix: tuple[str, ...]) -> None:
    """Whoever is impatient is heard."""

    def twice(pid: int, _: object) -> None:
        os.killpg(pid, signal.SIGTERM)
        os.killpg(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGALRM)

    assert sorted(seen_by(prefix, SEEN, twice)) == ["SIGALRM", "SIGHUP", "SIGTERM"]


@bare_and_run
def test_two_to_the_group_are_one_each(prefix: tuple[str, ...]) -> None:
    """However closely they follow each other, as those of `bg` and `kill %1` do."""
    rounds = 30

    def signal_twice(pid: int, next_seen: Callable[[], str]) -> None:
        for _ in range(rounds):
            os.killpg(pid, signal.SIGCONT)
            assert next_seen() == "SIGCONT\n"
            os.killpg(pid, signal.SIGTERM)
            assert next_seen() == "SIGTERM\n"

    assert seen_by(prefix, SEEN, signal_twice) == []


@bare_and_run
def test_a_signal_of_the_command_to_its_own_group(prefix: tuple[str, ...]) -> None:
    """`kill 0`, as of a script that ends: each member gets it once."""
    script = "trap '' TERM; kill -HUP 0; exec \"$@\""
    nothing = lambda pid, _: None  # noqa: E731

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    seen = seen_by(prefix, ("sh", "-c", script, "sh", *SEEN), nothing, before=ignore)
    assert seen == []


@bare_and_run
def test_a_signal_that_is_ignored_is_passed_on(prefix: tuple[str, ...]) -> None:
    """As of nohup: the command may have come to handle it since."""

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    seen = seen_by(prefix, SEEN, lambda pid, _: os.kill(pid, signal.SIGHUP), before=ignore)
    assert seen == ["SIGHUP"]


@bare_and_run
def test_a_signal_that_came_before_the_command_did(prefix: tuple[str, ...]) -> None:
    """It is pending, and stays so over exec (execve(2))."""

    def send() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)

    assert seen_by(prefix, SEEN, lambda pid, _: None, before=send) == ["SIGTERM"]


@bare_and_run
def test_a_group_that_was_stopped_goes_on(prefix: tuple[str, ...]) -> None:
    """Stopped as a whole, continued by the pid alone: the command goes on as well."""

    def stop_and_go(pid: int, _: object) -> None:
        os.killpg(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        os.kill(pid, signal.SIGCONT)

    assert seen_by(prefix, SEEN, stop_and_go) == ["SIGCONT"]


@bare_and_run
def test_it_is_killed_with_its_group(prefix: tuple[str, ...]) -> None:
    """SIGKILL, too, is the whole group's."""
    with subprocess.Popen(
        [*prefix, *SEEN], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as ran:
        assert ran.stdout is not None
        ran.stdout.readline()
        os.killpg(ran.pid, signal.SIGKILL)

        # All who held the pipe are gone.
        assert ran.stdout.read() == ""
        assert ran.wait() == -signal.SIGKILL
