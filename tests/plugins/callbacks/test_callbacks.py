"""Kind `callbacks`: what no kind knows is given back by the function given."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING

import pytest
from callbacks_driver import Handle
from drivers import LoopThread

from probate import (
    AlreadyOwnedError,
    NotOwnedError,
    Outcome,
    ProcessManager,
    ProcessTerminatedError,
    ResourceOrchestrator,
    UnadoptableError,
)
from probate_callbacks import CallbackResource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate import CleanupResult


class Session:
    """Closed by a coroutine, as the sessions of asynchronous libraries are."""

    def __init__(self, log: list[str] | None = None, name: str = "session") -> None:
        self.closed_on: list[asyncio.AbstractEventLoop] = []
        self.log = [] if log is None else log
        self.name = name

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed_on.append(asyncio.get_running_loop())
        self.log.append(self.name)


def messages(result: CleanupResult) -> list[tuple[Outcome, str]]:
    return [(error.outcome, error.message) for error in result.errors]


# -- ways in ---------------------------------------------------------------------


def test_a_thing_is_given_back_by_its_method_or_by_a_function_of_it(
    manager: ProcessManager,
) -> None:
    """`release=thing.close` and `release=Thing.close` both do what they say, once."""
    process = manager.create_process("p")
    first, second = Handle(), Handle()
    process.adopt(first, release=first.close)
    process.adopt(second, release=Handle.close)
    result = process.terminate()

    assert (first.closed, second.closed) == (1, 1)
    assert (dict(result.stats.by_type), result.is_success) == ({"callbacks": 2}, True)


def test_a_callback_gets_its_arguments(manager: ProcessManager) -> None:
    """As `ExitStack.callback` passes them."""
    process = manager.create_process("p")
    calls: list[object] = []
    process.callback(lambda *args, **kwargs: calls.append((args, kwargs)), 1, two=2)
    process.terminate()

    assert calls == [((1,), {"two": 2})]


def test_a_function_without_keywords_gives_back_by_builtin(
    manager: ProcessManager, tmp_path: Path
) -> None:
    """Functions written in C do as well: the descriptor is closed, says the kernel."""
    process = manager.create_process("p")
    fd = os.open(tmp_path, os.O_RDONLY)
    process.adopt(fd, release=os.close)
    process.terminate()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_newest_is_called_first_whatever_its_form(manager: ProcessManager) -> None:
    """Plain or coroutine, each is through before the next is begun."""
    log: list[str] = []

    async def work() -> CleanupResult:
        process = manager.create_process("p")
        process.callback(log.append, "first")
        for name in ("second", "third"):
            process.adopt(Session(log, name), release=Session.close)
        process.callback(log.append, "fourth")
        return await process.terminate_async()

    result = asyncio.run(work())

    assert log == ["fourth", "third", "second", "first"]
    assert result.is_success


def test_it_comes_before_what_it_may_use(manager: ProcessManager) -> None:
    """A callback may write to a socket of its process, which is open still."""
    process = manager.create_process("p")
    ours = manager.orchestrator["sockets"].manager.bind_udp(process.pid, ("127.0.0.1", 0))
    descriptors: list[int] = []
    process.callback(lambda: descriptors.append(ours.fileno()))
    process.terminate()

    assert descriptors != [-1]
    assert ours.fileno() == -1


# -- ways out --------------------------------------------------------------------


def test_give_back_calls_it_now_and_disown_never(manager: ProcessManager) -> None:
    """By the object or by the id; the end of the process has nothing more to do."""
    process = manager.create_process("p")
    handles = [Handle() for _ in range(4)]
    ids = [process.adopt(handle, release=Handle.close) for handle in handles]

    assert process.give_back(handles[0]) is Outcome.RELEASED
    assert process.give_back(ids[1]) is Outcome.RELEASED
    process.disown(handles[2])
    process.disown(ids[3])
    result = process.terminate()

    assert [handle.closed for handle in handles] == [1, 1, 0, 0]
    assert result.stats.resources_freed == 0


def test_native_things_of_any_kind_are_given_back_and_disowned(manager: ProcessManager) -> None:
    """Whatever kind has it: its own release is called, or nobody's."""
    process = manager.create_process("p")
    sockets = manager.orchestrator["sockets"].manager
    first, second = (sockets.bind_udp(process.pid, ("127.0.0.1", 0)) for _ in range(2))

    assert process.give_back(first) is Outcome.RELEASED
    process.disown(second)
    process.terminate()

    assert first.fileno() == -1
    assert second.fileno() != -1
    second.close()


def test_who_does_not_own_it_gives_nothing_back(manager: ProcessManager) -> None:
    """NotOwnedError says who does."""
    one, two = manager.create_process("one"), manager.create_process("two")
    handle = Handle()
    key = one.adopt(handle, release=Handle.close)

    for act in (two.give_back, two.disown):
        for what in (handle, key):
            with pytest.raises(NotOwnedError, match=f"process {one.pid} does"):
                act(what)
    assert handle.closed == 0


def test_a_thing_has_one_owner_over_all_kinds(manager: ProcessManager) -> None:
    """What a kind has already is not given to a function as well, nor twice to functions."""
    process = manager.create_process("p")
    ours = manager.orchestrator["sockets"].manager.bind_udp(process.pid, ("127.0.0.1", 0))
    handle = Handle()
    process.adopt(handle, release=Handle.close)

    with pytest.raises(AlreadyOwnedError, match=f"owned by process {process.pid}"):
        process.adopt(ours, release=ours.close)
    with pytest.raises(AlreadyOwnedError):
        process.adopt(handle, release=Handle.close)


def test_the_dead_get_nothing_more(manager: ProcessManager) -> None:
    """Refused at the door, and not called."""
    process = manager.create_process("p")
    process.terminate()
    handle = Handle()

    with pytest.raises(ProcessTerminatedError):
        process.adopt(handle, release=Handle.close)
    with pytest.raises(ProcessTerminatedError):
        process.callback(handle.close)
    assert handle.closed == 0


@pytest.mark.parametrize("release", [3, "close", None])
def test_what_cannot_be_called_is_refused(manager: ProcessManager, release: object) -> None:
    """TypeError or UnadoptableError, which says how it is done."""
    process = manager.create_process("p")

    with pytest.raises(TypeError):
        process.adopt(Handle(), release=release)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        process.callback(release)  # type: ignore[arg-type]


def test_what_nobody_adopts_is_told_the_way(manager: ProcessManager) -> None:
    """The error names the object, the kinds asked, and `release=`."""
    process = manager.create_process("p")

    with pytest.raises(UnadoptableError, match=r"adopt\(thing, release=thing\.close\)"):
        process.adopt(Handle())


def test_without_the_kind_the_error_names_the_distribution() -> None:
    """Nobody calls functions then."""
    orchestrator = ResourceOrchestrator()

    with pytest.raises(UnadoptableError, match="pip install probate-callbacks"):
        orchestrator.adopt(1, Handle(), release=Handle.close)


# -- what goes wrong -------------------------------------------------------------


def test_what_one_raises_is_in_the_account_and_stops_no_other(manager: ProcessManager) -> None:
    """Each of them, in the order of their failing."""
    process = manager.create_process("p")
    calls: list[str] = []

    def fail(how: str) -> None:
        calls.append(how)
        raise RuntimeError(how)

    async def fail_async(how: str) -> None:
        fail(how)

    for function, how in ((fail, "a"), (calls.append, "b"), (fail_async, "c"), (calls.append, "d")):
        process.callback(function, how)
    result = process.terminate()

    assert calls == ["d", "c", "b", "a"]
    assert messages(result) == [
        (Outcome.FAILED, "RuntimeError: c"),
        (Outcome.FAILED, "RuntimeError: a"),
    ]
    assert "fail_async()" in result.errors[0].resource


def test_an_outcome_is_taken_at_its_word_and_all_else_is_not(manager: ProcessManager) -> None:
    """A callback that returns BUSY stays owned; what others return means nothing."""
    process = manager.create_process("p")
    answers = [Outcome.BUSY, Outcome.RELEASED]
    process.callback(lambda: answers.pop(0))
    process.callback(lambda: False)
    result = process.terminate()

    assert (result.is_success, result.stats.resources_freed) == (True, 2)


def test_one_that_hangs_is_left_behind(orchestrator: ResourceOrchestrator) -> None:
    """TIMEOUT in the account, and the caller goes on."""
    over = threading.Event()
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0)
    try:
        with builder.with_deadline(0.2).build() as manager:
            process = manager.create_process("p")
            process.callback(over.wait)
            result = process.terminate()

            assert [error.outcome for error in result.errors] == [Outcome.TIMEOUT]
    finally:
        over.set()


def test_a_coroutine_that_takes_too_long_is_cancelled_and_the_next_has_its_turn(
    orchestrator: ResourceOrchestrator,
) -> None:
    """It is not called a second time; the deadline is shared out, not used up by one."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0)
    ends: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    manager = builder.with_deadline(2).build()
    process = manager.create_process("p")
    process.callback(ends.append, "next")
    process.callback(hang)
    result = process.terminate()

    assert ends == ["cancelled", "next"]
    assert messages(result) == [
        (Outcome.FAILED, "its coroutine did not end in time, and was cancelled")
    ]
    manager.close()


def test_a_coroutine_that_its_loop_does_not_come_to_is_never_begun(
    orchestrator: ResourceOrchestrator,
) -> None:
    """A loop that is held up: TIMEOUT, and nothing is called behind anybody's back later."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0)
    calls: list[str] = []

    async def close() -> None:
        calls.append("closed")

    with LoopThread() as loop, builder.with_deadline(0.3).build() as manager:
        process = manager.create_process("p")
        key = loop.call(lambda: process.callback(close))
        over = threading.Event()
        loop.loop.call_soon_threadsafe(over.wait)
        result = process.terminate()
        over.set()
        loop.call(lambda: None)

        assert [error.outcome for error in result.errors] == [Outcome.TIMEOUT]
        assert calls == []
        assert orchestrator.give_back(process.pid, key) is Outcome.RELEASED
        assert calls == ["closed"]


@pytest.mark.parametrize("release", [lambda: None, lambda handle: handle.close()])
def test_a_function_gets_the_thing_if_it_takes_one(
    manager: ProcessManager, release: Callable[..., object]
) -> None:
    """What a checker lets pass does not fail at the end."""
    process = manager.create_process("p")
    process.adopt(Handle(), release=release)

    assert process.terminate().is_success


def test_a_generator_function_is_refused(manager: ProcessManager) -> None:
    """It would do nothing when it is called, and count as done."""
    process = manager.create_process("p")

    def generate() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="generator function"):
        process.callback(generate)


def test_a_number_that_is_also_an_id_is_not_guessed_at(manager: ProcessManager) -> None:
    """ValueError: neither is released by the other's number."""
    process = manager.create_process("p")
    first = process.callback(print)
    process.adopt(int(first), release=lambda number: None)

    with pytest.raises(ValueError, match="both an id and a number"):
        process.give_back(first)


# -- loops -----------------------------------------------------------------------


def test_a_coroutine_function_runs_on_the_loop_of_its_adoption(manager: ProcessManager) -> None:
    """Ended by the loop itself, asynchronously, or by any other thread."""

    async def work(*, elsewhere: bool) -> tuple[Session, asyncio.AbstractEventLoop]:
        process, session = manager.create_process("p"), Session()
        process.adopt(session, release=Session.close)
        if elsewhere:
            await asyncio.to_thread(process.terminate)
        else:
            await process.terminate_async()
        return session, asyncio.get_running_loop()

    for elsewhere in (False, True):
        session, loop = asyncio.run(work(elsewhere=elsewhere))

        assert session.closed_on == [loop]


def test_a_manager_without_a_deadline_does_so_too(orchestrator: ResourceOrchestrator) -> None:
    """No thread is needed to leave behind what hangs, but one to keep the loop free."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)

    async def work() -> bool:
        async with builder.with_deadline(None).build() as manager:
            process = manager.create_process("p")
            process.adopt(Session(), release=Session.close)
            return (await process.terminate_async()).is_success

    assert asyncio.run(work())


def test_a_sync_end_on_its_own_loop_is_busy_until_the_manager_closes(
    orchestrator: ResourceOrchestrator,
) -> None:
    """Waiting would hold up the loop that has to run it; what to do instead is said."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0)

    async def work() -> tuple[CleanupResult, Session]:
        async with builder.build() as manager:
            process, session = manager.create_process("p"), Session()
            process.adopt(session, release=Session.close)
            return process.terminate(), session

    result, session = asyncio.run(work())

    assert [error.outcome for error in result.errors] == [Outcome.BUSY]
    assert "terminate_process_async" in result.errors[0].message
    assert len(session.closed_on) == 1


def test_give_back_on_its_own_loop_is_awaited(manager: ProcessManager) -> None:
    """The plain form says so, and the thing stays owned until it is."""

    async def work() -> tuple[Session, asyncio.AbstractEventLoop]:
        process, session = manager.create_process("p"), Session()
        process.adopt(session, release=session.close)
        with pytest.raises(Exception, match="give_back_async"):
            process.give_back(session)
        assert process.usage()["callbacks"].count == 1
        assert await process.give_back_async(session) is Outcome.RELEASED
        assert process.usage() == {}
        return session, asyncio.get_running_loop()

    session, loop = asyncio.run(work())

    assert session.closed_on == [loop]


def test_without_a_loop_at_adoption_it_gets_a_new_one(manager: ProcessManager) -> None:
    """On a thread of its own."""
    process, session = manager.create_process("p"), Session()
    process.adopt(session, release=Session.close)
    process.terminate()

    assert len(session.closed_on) == 1
    assert session.closed_on[0].is_closed()


def test_of_a_loop_that_is_closed_it_has_failed(manager: ProcessManager) -> None:
    """It had to run there, and never can."""

    async def adopt() -> int:
        process = manager.create_process("p")
        process.adopt(Session(), release=Session.close)
        return process.pid

    pid = asyncio.run(adopt())
    result = manager.terminate_process(pid)

    assert messages(result) == [
        (
            Outcome.FAILED,
            "its event loop is closed, so what had to run there did not",
        )
    ]


def test_what_a_plain_function_returns_to_be_awaited_is_awaited(manager: ProcessManager) -> None:
    """A lambda around a coroutine method, or a partial of one, is common."""

    async def work() -> tuple[list[Session], asyncio.AbstractEventLoop]:
        process, sessions = manager.create_process("p"), [Session(), Session()]
        process.adopt(sessions[0], release=lambda session: session.close())
        process.adopt(sessions[1], release=functools.partial(Session.close))
        await process.terminate_async()
        return sessions, asyncio.get_running_loop()

    sessions, loop = asyncio.run(work())

    assert [session.closed_on for session in sessions] == [[loop], [loop]]


# -- stacks ----------------------------------------------------------------------


def test_an_exit_stack_is_unwound(manager: ProcessManager) -> None:
    """With all that it holds."""
    process, log = manager.create_process("p"), list[str]()
    stack = ExitStack()
    stack.callback(log.append, "inner")
    process.adopt(stack, release=stack.close)
    process.terminate()

    assert log == ["inner"]


def test_an_async_exit_stack_is_unwound_on_its_loop(manager: ProcessManager) -> None:
    """What it holds belongs to that loop."""

    async def work() -> tuple[Session, asyncio.AbstractEventLoop]:
        session, stack = Session(), AsyncExitStack()
        stack.push_async_callback(session.close)
        process = manager.create_process("p")
        process.adopt(stack, release=stack.aclose)
        await process.terminate_async()
        return session, asyncio.get_running_loop()

    session, loop = asyncio.run(work())

    assert session.closed_on == [loop]


def test_a_new_one_is_made_for_each_orchestrator() -> None:
    """Both issue pid 1: one's callback is not the other's."""
    managers = []
    for _ in range(2):
        orchestrator = ResourceOrchestrator().register(CallbackResource(), "callbacks")
        builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
        managers.append(builder.with_grace(0).build())
    handles = [Handle(), Handle()]
    processes = [manager.create_process("p") for manager in managers]
    for process, handle in zip(processes, handles, strict=True):
        process.adopt(handle, release=Handle.close)
    processes[0].terminate()

    assert [process.pid for process in processes] == [1, 1]
    assert [handle.closed for handle in handles] == [1, 0]
    for manager in managers:
        manager.close()
