"""The one thread that is told of deaths: each is told once, of nobody else's, and none is lost."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from children import exit_code_of_fork
from spawn_kernel import changes_since
from spawn_sleepers import sleeper

from probate import DeathWatch
from probate.system.exiting import join_thread
from probate.testing.witness import KernelView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    #: Makes pipes.
    Pipes = Callable[[], tuple[int, int]]

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # From 3.12 on, os.fork() warns where there are several threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

#: Seconds within which everything here comes to pass, however slow the machine.
PATIENCE = 20


@pytest.fixture
def watch() -> Iterator[DeathWatch]:
    """A watch of its own, that must be able to end."""
    watch = DeathWatch()
    yield watch
    watch.join_if_idle()


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    """Makes pipes; all are closed in the end."""
    made: list[int] = []

    def make() -> tuple[int, int]:
        ends = os.pipe()
        made.extend(ends)
        return ends

    yield make
    for fd in set(made):
        with contextlib.suppress(OSError):
            os.close(fd)


def hold(watch: DeathWatch, pipe: tuple[int, int]) -> Callable[[], None]:
    """Keep the watch's thread in a callback until what is returned is called."""
    entered, over = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        over.wait(PATIENCE)

    os.write(pipe[1], b"x")
    watch.watch(pipe[0], block)

    assert entered.wait(PATIENCE)
    return over.set


def wait_for_turn(watch: DeathWatch, pipe: tuple[int, int]) -> None:
    """Wait until all that is ready now has been told: this one is ready last."""
    done = threading.Event()
    os.write(pipe[1], b"x")
    watch.watch(pipe[0], done.set)

    assert done.wait(PATIENCE)


def test_a_death_is_told_once_and_by_the_kernel(watch: DeathWatch) -> None:
    """SIGKILL from outside makes a pidfd readable; the callback runs once, on its thread."""
    told: list[str] = []
    done = threading.Event()

    def note() -> None:
        told.append(threading.current_thread().name)
        done.set()

    with sleeper() as popen:
        pidfd = os.pidfd_open(popen.pid)
        watch.watch(pidfd, note)
        os.kill(popen.pid, signal.SIGKILL)

        assert done.wait(PATIENCE)
        watch.join_if_idle()
        os.close(pidfd)
        assert told == ["probate-death-watch"]


def test_one_thread_watches_a_thousand_pidfds_and_is_gone_afterwards(watch: DeathWatch) -> None:
    """However many are watched, the kernel shows one thread more, and none when all is told."""
    before = KernelView.take()
    told: list[int] = []
    all_told = threading.Event()

    def note(number: int) -> None:
        told.append(number)
        if len(told) == 800:
            all_told.set()

    with contextlib.ExitStack() as stack:
        victims = [stack.enter_context(sleeper()) for _ in range(20)]
        pidfds = [os.pidfd_open(victims[number % 20].pid) for number in range(800)]
        for number, pidfd in enumerate(pidfds):
            watch.watch(pidfd, lambda number=number: note(number))  # type: ignore[misc]  # bound here
        threads = KernelView.take().threads - before.threads
        for victim in victims:
            victim.kill()

        assert all_told.wait(PATIENCE)
        watch.join_if_idle()
        for pidfd in pidfds:
            os.close(pidfd)
        assert len(threads) == 1
        assert sorted(told) == list(range(800))
    assert changes_since(before) == []


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_callback_that_raises_keeps_no_other_from_being_called(
    watch: DeathWatch,
    pipes: Pipes,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    """Whatever it raises is logged, and the thread goes on; so for the next one that is watched."""
    first, second, third = pipes(), pipes(), pipes()
    go_on = hold(watch, pipes())
    called = [threading.Event(), threading.Event()]

    def fail() -> None:
        raise error("no luck")

    with caplog.at_level(logging.ERROR, "probate"):
        for reader, writer in (first, second):
            os.write(writer, b"x")
            watch.watch(reader, fail if reader == first[0] else called[0].set)
        watch.watch(third[0], called[1].set)
        go_on()

        assert called[0].wait(PATIENCE)
        os.write(third[1], b"x")
        assert called[1].wait(PATIENCE)
    watch.join_if_idle()
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [error]


def test_a_callback_may_watch_again_and_forget_itself(watch: DeathWatch, pipes: Pipes) -> None:
    """It is not watched any more while its callback runs, so it can be watched anew."""
    reader, writer = pipes()
    os.write(writer, b"xyz")
    read: list[bytes] = []
    forgotten, done = list[bool](), threading.Event()

    def note() -> None:
        read.append(os.read(reader, 1))
        forgotten.append(watch.forget(reader))
        if len(read) < 3:
            watch.watch(reader, note)
        else:
            watch.join_if_idle()
            done.set()

    watch.watch(reader, note)

    assert done.wait(PATIENCE)
    assert read == [b"x", b"y", b"z"]
    assert forgotten == [False, False, False]


def test_what_a_callback_forgets_is_not_called_any_more(watch: DeathWatch, pipes: Pipes) -> None:
    """Both are ready at the same moment; the one that comes first forgets the other one."""
    ends = [pipes(), pipes()]
    go_on = hold(watch, pipes())
    told: list[int] = []
    forgotten: list[bool] = []

    def note(number: int) -> None:
        told.append(number)
        forgotten.append(watch.forget(ends[1 - number][0]))

    for number, (reader, writer) in enumerate(ends):
        os.write(writer, b"x")
        watch.watch(reader, lambda number=number: note(number))  # type: ignore[misc]  # bound here
    go_on()
    wait_for_turn(watch, pipes())

    assert len(told) == 1
    assert forgotten == [True]


def test_a_death_is_never_told_of_a_successor(watch: DeathWatch, pipes: Pipes) -> None:
    """Forgotten, closed, and its number given to another file, which is watched: that one lives."""
    ends = [pipes(), pipes()]
    go_on = hold(watch, pipes())
    told: list[str] = []
    successors: list[tuple[int, int]] = []

    def replace(number: int) -> None:
        told.append("dead")
        other = ends[1 - number][0]
        watch.forget(other)
        fresh = pipes()
        os.dup2(fresh[0], other)
        successors.append(fresh)
        watch.watch(other, lambda: told.append("successor"))

    for number, (reader, writer) in enumerate(ends):
        os.write(writer, b"x")
        watch.watch(reader, lambda number=number: replace(number))  # type: ignore[misc]  # bound here
    go_on()
    wait_for_turn(watch, pipes())
    # Once more: by then, what was watched during the first turn would have been told.
    wait_for_turn(watch, pipes())

    assert told == ["dead"]

    os.write(successors[0][1], b"x")
    wait_for_turn(watch, pipes())

    assert told == ["dead", "successor"]


def test_forget_and_death_race_to_one_outcome(watch: DeathWatch, pipes: Pipes) -> None:
    """Forgotten in time means never called; too late means called exactly once. 300 rounds."""
    keep, _ = pipes()
    watch.watch(keep, lambda: None)
    outcomes: set[bool] = set()
    for turn in range(300):
        reader, writer = os.pipe()
        calls: list[None] = []
        called = threading.Event()

        def note(calls: list[None] = calls, called: threading.Event = called) -> None:
            calls.append(None)
            called.set()

        watch.watch(reader, note)
        os.write(writer, b"x")
        # Sometimes at once, sometimes after a while.
        for _ in range(turn % 30):
            time.sleep(0)
        in_time = watch.forget(reader)
        outcomes.add(in_time)

        assert in_time or called.wait(PATIENCE)
        assert len(calls) == (0 if in_time else 1)
        os.close(reader)
        os.close(writer)
    watch.forget(keep)
    assert outcomes == {True, False}


def test_none_is_lost_that_is_watched_as_the_thread_ends(watch: DeathWatch, pipes: Pipes) -> None:
    """Watched at the very moment in which the last one was told: told as well. 500 rounds."""
    reader, writer = pipes()
    os.write(writer, b"x")
    before = threading.active_count()
    for turn in range(500):
        first, second = threading.Event(), threading.Event()
        watch.watch(reader, first.set)
        assert first.wait(PATIENCE)
        for _ in range(turn % 20):
            time.sleep(0)
        watch.watch(reader, second.set)

        assert second.wait(PATIENCE), f"never told, in round {turn}"
    watch.join_if_idle()
    assert threading.active_count() == before


def test_it_waits_asleep_after_it_was_idle_for_a_moment(watch: DeathWatch, pipes: Pipes) -> None:
    """Forgotten and watched again before the thread could end: it does not spin from then on."""
    first, second = pipes()[0], pipes()[0]
    watch.watch(first, lambda: None)
    with watch._lock:
        # The thread is woken up to end, and finds that it is needed after all.
        watch.forget(first)
        watch.watch(second, lambda: None)
    wait_for_turn(watch, pipes())
    thread = next(each for each in threading.enumerate() if each.name == "probate-death-watch")
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    started = time.clock_gettime(clock)
    # There is no event for nothing happening: for this long.
    time.sleep(0.4)
    used = time.clock_gettime(clock) - started
    watch.forget(second)

    assert used < 0.05


def test_joining_it_waits_for_nothing_that_is_watched_since(
    watch: DeathWatch, pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watched in a callback, while another thread found nothing watched: that waited for ever."""
    first, second, third = pipes(), pipes(), pipes()
    joining = threading.Event()

    def join(thread: threading.Thread) -> None:
        joining.set()
        join_thread(thread)

    monkeypatch.setattr("probate.system.deathwatch.join_thread", join)
    joiner = threading.Thread(target=watch.join_if_idle, daemon=True)

    def watch_again() -> None:
        joiner.start()
        joining.wait(PATIENCE)
        watch.watch(second[0], lambda: None)

    os.write(first[1], b"x")
    watch.watch(first[0], watch_again)
    assert joining.wait(PATIENCE)
    joiner.join(PATIENCE)

    assert not joiner.is_alive()
    wait_for_turn(watch, third)
    assert watch.forget(second[0])


def test_one_that_is_closed_too_early_harms_no_other(watch: DeathWatch, pipes: Pipes) -> None:
    """Closed without being forgotten, against the rules, and forgotten later: others are told."""
    (early, _), (reader, writer), done = pipes(), pipes(), threading.Event()
    watch.watch(early, lambda: None)
    watch.watch(reader, done.set)
    os.close(early)

    assert watch.forget(early)
    os.write(writer, b"x")
    assert done.wait(PATIENCE)


def test_what_cannot_be_watched_is_an_error_and_starts_nothing(
    watch: DeathWatch, pipes: Pipes, tmp_path: object
) -> None:
    """A descriptor that is not open, a regular file, the same one twice; no thread is left."""
    before = KernelView.take()
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch.watch(1 << 20, lambda: None)
    with open(f"{tmp_path}/regular", "wb") as file, pytest.raises(PermissionError):
        watch.watch(file.fileno(), lambda: None)
    watch.join_if_idle()

    assert changes_since(before) == []
    assert not watch.forget(1 << 20)

    reader, _ = pipes()
    watch.watch(reader, lambda: None)
    with pytest.raises(ValueError, match="watched already"):
        watch.watch(reader, lambda: None)

    assert watch.forget(reader)
    assert not watch.forget(reader)


def test_a_forked_child_watches_for_itself(watch: DeathWatch, pipes: Pipes) -> None:
    """It watches nothing of its parent's, takes nothing from it, and can watch its own."""
    parents, own = pipes(), pipes()
    told: list[int] = []
    done = threading.Event()

    def note() -> None:
        told.append(os.getpid())
        done.set()

    watch.watch(parents[0], note)

    def child() -> None:
        assert not watch.forget(parents[0])
        called = threading.Event()
        os.write(own[1], b"x")
        watch.watch(own[0], called.set)
        assert called.wait(PATIENCE)
        watch.join_if_idle()
        assert threading.active_count() == 1

    assert exit_code_of_fork(child) == 0
    assert told == []
    os.write(parents[1], b"x")
    assert done.wait(PATIENCE)
    assert told == [os.getpid()]


def test_a_fork_while_it_fires_does_not_hold_up_the_child(watch: DeathWatch, pipes: Pipes) -> None:
    """Whatever the watch's thread is in the middle of, and whatever it holds: 30 rounds."""
    reader, writer = pipes()
    os.write(writer, b"x")
    over, ended = threading.Event(), threading.Event()

    def again() -> None:
        if over.is_set():
            ended.set()
        else:
            watch.watch(reader, again)

    watch.watch(reader, again)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):

            def child() -> None:
                called = threading.Event()
                watch.watch(reader, called.set)
                assert called.wait(PATIENCE)

            assert exit_code_of_fork(child) == 0
    finally:
        over.set()
        sys.setswitchinterval(interval)
        ended.wait(PATIENCE)


def test_all_that_are_ready_at_once_are_told_in_one_round(watch: DeathWatch, pipes: Pipes) -> None:
    """What a callback learns holds for the others of its round; what is ready later is not."""
    ends = [pipes() for _ in range(5)]
    late = pipes()
    go_on = hold(watch, pipes())
    rounds: list[int] = []

    def note() -> None:
        rounds.append(watch.round)
        if len(rounds) == 1:
            os.write(late[1], b"x")
            watch.watch(late[0], note)

    for reader, writer in ends:
        os.write(writer, b"x")
        watch.watch(reader, note)
    go_on()
    wait_for_turn(watch, pipes())
    wait_for_turn(watch, pipes())

    first, *others = rounds
    assert others[:4] == [first] * 4
    assert len(others) == 5
    assert others[4] > first


def test_what_is_due_cannot_be_watched_again_before_it_is_told(
    watch: DeathWatch, pipes: Pipes
) -> None:
    """It is still being watched, by another callback, which is about to be called."""
    ends = [pipes(), pipes()]
    go_on = hold(watch, pipes())
    told: list[int] = []
    errors: list[str] = []

    def note(number: int) -> None:
        told.append(number)
        if len(told) == 1:
            try:
                watch.watch(ends[1 - number][0], lambda: None)
            except ValueError as error:
                errors.append(str(error))

    for number, (reader, writer) in enumerate(ends):
        os.write(writer, b"x")
        watch.watch(reader, lambda number=number: note(number))  # type: ignore[misc]  # bound here
    go_on()
    wait_for_turn(watch, pipes())
    wait_for_turn(watch, pipes())

    assert sorted(told) == [0, 1]
    assert len(errors) == 1
    assert errors[0].endswith("is watched already")


def test_a_timer_is_called_once_when_its_time_has_come(watch: DeathWatch, pipes: Pipes) -> None:
    """Later than asked, never earlier, in the order of their times, on the watch's thread."""
    called: list[tuple[str, float]] = []
    done = threading.Event()

    def note(name: str) -> None:
        called.append((name, time.monotonic()))
        if len(called) == 2:
            done.set()

    since = time.monotonic()
    watch.call_later(0.1, lambda: note("second"))
    watch.call_later(0.02, lambda: note("first"))
    watch.cancel(watch.call_later(0.05, lambda: note("never")))

    assert done.wait(PATIENCE)
    watch.join_if_idle()
    assert [name for name, _ in called] == ["first", "second"]
    assert called[0][1] - since >= 0.02
    assert called[1][1] - since >= 0.1


@pytest.mark.parametrize("seconds", [30 * 86_400.0, 1e12, float("inf")])
def test_a_timer_for_a_far_day_ends_no_watch(
    watch: DeathWatch, pipes: Pipes, seconds: float
) -> None:
    """More milliseconds than poll(2) takes, such as of a lease for a month: all others are told."""
    timer = watch.call_later(seconds, lambda: None)
    for pipe in (pipes(), pipes()):
        told = threading.Event()
        watch.watch(pipe[0], told.set)
        os.write(pipe[1], b"x")
        assert told.wait(PATIENCE)

    watch.cancel(timer)


def test_a_cancelled_timer_keeps_no_thread(watch: DeathWatch) -> None:
    """Nor a descriptor: nobody waits for a moment that nobody wants."""
    before = KernelView.take()
    timer = watch.call_later(PATIENCE * 10, lambda: None)
    watch.cancel(timer)
    watch.cancel(timer)
    watch.join_if_idle()

    assert changes_since(before) == []


def test_a_death_is_told_while_a_timer_waits(watch: DeathWatch, pipes: Pipes) -> None:
    """And the other way round: an earlier timer is not held up by what is watched."""
    pipe, told = pipes(), threading.Event()
    timer = watch.call_later(PATIENCE * 10, lambda: None)
    watch.watch(pipe[0], told.set)
    os.write(pipe[1], b"x")
    assert told.wait(PATIENCE)

    other, early = pipes(), threading.Event()
    watch.watch(other[0], lambda: None)
    watch.call_later(0.01, early.set)
    assert early.wait(PATIENCE)
    watch.forget(other[0])
    watch.cancel(timer)
