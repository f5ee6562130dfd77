"""Terminating what has exited: many at a time, none holds up another, none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import threading
import time
from typing import TYPE_CHECKING

import pytest
from children import exit_code_of_fork
from processes_kernel import eventually
from spawn_kernel import changes_since

from probate.process.terminationthread import TerminationThread
from probate.testing.witness import KernelView

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    Make = Callable[[], Coroutine[object, object, object]]

pytestmark = [
    pytest.mark.usefixtures("nothing_remains"),
    # From 3.12 on, os.fork() warns where there are several threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

#: Seconds within which everything here comes to pass, however slow the machine.
PATIENCE = 20


def noting(log: list[int], number: int) -> Make:
    """Makes a coroutine that takes one turn of the loop, and then notes that it ran."""

    async def note() -> None:
        await asyncio.sleep(0)
        log.append(number)

    return note


def thread_ids() -> list[int | None]:
    return [each.ident for each in threading.enumerate() if each.name == "probate-termination"]


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process has run into its limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        highest = max(KernelView.take().fds)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    stack.enter_context(open(os.devnull))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_all_are_run_and_nothing_of_it_remains() -> None:
    """From several threads, hundreds: each once; join waits for all, and for thread and loop."""
    termination_thread = TerminationThread()
    log: list[int] = []

    def feed(start: int) -> None:
        for number in range(start, start + 100):
            termination_thread.run(noting(log, number))

    threads = [threading.Thread(target=feed, args=(100 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    termination_thread.join()

    assert sorted(log) == list(range(800))


def test_one_that_hangs_holds_up_no_other() -> None:
    """Those that come later are done while it waits; join waits for it as well."""
    termination_thread = TerminationThread()
    log: list[int] = []
    begun, go_on = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def hang() -> None:
        loops.append(asyncio.get_running_loop())
        begun.set()
        await go_on.wait()
        log.append(-1)

    termination_thread.run(hang)
    assert begun.wait(PATIENCE)
    done = threading.Event()

    async def last() -> None:
        done.set()

    for number in range(50):
        termination_thread.run(noting(log, number))
    termination_thread.run(last)

    assert done.wait(PATIENCE)
    loops[0].call_soon_threadsafe(go_on.set)
    termination_thread.join()
    assert sorted(log) == list(range(-1, 50))


async def no_luck(error: type[BaseException]) -> None:
    raise error("no luck")


@pytest.mark.parametrize(
    "error", [ValueError, asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit]
)
def test_whatever_one_raises_is_logged_and_ends_no_other(
    caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """Not even a SystemExit ends the thread: those before, beside and after it are run."""
    termination_thread = TerminationThread()
    log: list[int] = []
    with caplog.at_level(logging.ERROR, "probate"):
        termination_thread.run(noting(log, 0))
        termination_thread.run(lambda: no_luck(error))
        termination_thread.run(noting(log, 1))
        termination_thread.join()
        termination_thread.run(noting(log, 2))
        termination_thread.join()

    assert sorted(log) == [0, 1, 2]
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [error]


def test_one_that_cannot_even_begin_is_logged_and_ends_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The call that makes the coroutine may fail as well."""
    termination_thread = TerminationThread()
    log: list[int] = []

    def fail() -> Coroutine[object, object, object]:
        raise ValueError("no luck")

    with caplog.at_level(logging.ERROR, "probate"):
        termination_thread.run(fail)
        termination_thread.run(noting(log, 0))
        termination_thread.join()

    assert log == [0]
    assert len(caplog.records) == 1


def test_none_is_lost_that_comes_as_the_thread_ends() -> None:
    """Each comes at the very moment in which the one before is done: 300 rounds."""
    termination_thread = TerminationThread()
    for turn in range(300):
        done = threading.Event()

        async def note(done: threading.Event = done) -> None:
            done.set()

        termination_thread.run(note)

        assert done.wait(PATIENCE), f"never run, in round {turn}"
        for _ in range(turn % 20):
            time.sleep(0)
    termination_thread.join()

    assert thread_ids() == []


def test_join_from_what_is_being_run_does_not_wait_for_itself() -> None:
    """On the loop, and on a thread that is called from it, as the hooks of plugins are."""
    termination_thread = TerminationThread()
    joined: list[str] = []

    async def join() -> None:
        termination_thread.join()
        joined.append("loop")
        await asyncio.to_thread(termination_thread.join)
        joined.append("thread")

    termination_thread.run(join)
    termination_thread.join()

    assert joined == ["loop", "thread"]


def test_without_descriptors_it_waits_for_some(caplog: pytest.LogCaptureFixture) -> None:
    """A host that has run into its limit goes on as soon as it can, and says so once."""
    termination_thread = TerminationThread()
    log: list[int] = []
    with no_descriptors():
        termination_thread.run(noting(log, 0))
        termination_thread.run(noting(log, 1))
        eventually(lambda: caplog.records, "it is logged")
        assert log == []
    termination_thread.join()

    assert log == [0, 1]
    assert [record.name for record in caplog.records].count("probate") == 1


def test_join_without_anything_to_run_returns_at_once() -> None:
    """And starts nothing."""
    before = KernelView.take()
    TerminationThread().join()

    assert changes_since(before) == []


def test_a_forked_child_runs_only_its_own() -> None:
    """What the parent is running is not run again in the child, nor waited for."""
    termination_thread = TerminationThread()
    begun, go_on = threading.Event(), threading.Event()
    log: list[int] = []

    async def hang() -> None:
        begun.set()
        await asyncio.to_thread(go_on.wait, PATIENCE)
        log.append(0)

    termination_thread.run(hang)
    assert begun.wait(PATIENCE)

    def child() -> None:
        termination_thread.join()
        assert log == []
        termination_thread.run(noting(log, 1))
        termination_thread.join()
        assert log == [1]

    assert exit_code_of_fork(child) == 0
    go_on.set()
    termination_thread.join()
    assert log == [0]


def test_kept_ready_it_runs_all_on_one_loop_until_it_is_let_go() -> None:
    """One thread and one loop serve all, also after a while in which there was nothing to do."""
    termination_thread = TerminationThread()
    loops: set[asyncio.AbstractEventLoop] = set()
    termination_thread.keep_ready()
    termination_thread.keep_ready()
    ready = thread_ids()
    for _ in range(20):
        done = threading.Event()

        async def note(done: threading.Event = done) -> None:
            loops.add(asyncio.get_running_loop())
            done.set()

        termination_thread.run(note)
        assert done.wait(PATIENCE)
        termination_thread.let_go()
        termination_thread.keep_ready()
    termination_thread.let_go()

    assert len(ready) == 1
    assert thread_ids() == ready
    assert len(loops) == 1

    termination_thread.let_go()
    termination_thread.join()

    assert thread_ids() == []


def test_kept_ready_without_descriptors_it_neither_waits_for_some_nor_complains(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is nothing to run yet; when there is, it is run."""
    termination_thread = TerminationThread()
    log: list[int] = []
    with no_descriptors():
        termination_thread.keep_ready()
        termination_thread.join()
        assert thread_ids() == []
    termination_thread.run(noting(log, 0))
    termination_thread.let_go()
    termination_thread.join()

    assert log == [0]
    assert caplog.records == []


def test_what_comes_as_it_is_let_go_is_not_lost() -> None:
    """The thread may be about to end as the next one comes: 300 rounds."""
    termination_thread = TerminationThread()
    for turn in range(300):
        done = threading.Event()

        async def note(done: threading.Event = done) -> None:
            done.set()

        termination_thread.keep_ready()
        for _ in range(turn % 20):
            time.sleep(0)
        termination_thread.let_go()
        termination_thread.run(note)

        assert done.wait(PATIENCE), f"never run, in round {turn}"
    termination_thread.join()

    assert thread_ids() == []


def test_a_forked_child_is_not_kept_ready_by_its_parent() -> None:
    """It has no thread, makes its own, and leaves the parent's loop alone."""
    termination_thread = TerminationThread()
    termination_thread.keep_ready()
    log: list[int] = []

    def child() -> None:
        termination_thread.run(noting(log, 1))
        termination_thread.join()
        assert log == [1]
        assert thread_ids() == []

    assert exit_code_of_fork(child) == 0
    termination_thread.run(noting(log, 0))
    termination_thread.let_go()
    termination_thread.join()
    assert log == [0]
