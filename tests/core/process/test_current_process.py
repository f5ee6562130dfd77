"""The current process: whom an acquisition without a pid is for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from plugins_things import Thing, ThingResource
from threads import in_thread

from probate import (
    NoCurrentProcessError,
    ProcessManager,
    ProcessState,
    current_process,
    pid_or_current,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


def test_a_scope_makes_its_process_current_and_ends_it(
    manager: ProcessManager, plugin: ThingResource
) -> None:
    """Inside, `p.adopt(thing)` and current_process just work; outside there is none."""
    with manager.process("job") as process:
        assert current_process() is process

        thing = Thing()
        process.adopt(thing)

        assert process.usage()["things"].count == 1

    assert thing.releases == 1
    assert process.state is ProcessState.TERMINATED
    with pytest.raises(NoCurrentProcessError, match="no process is current"):
        current_process()


def test_scopes_nest(manager: ProcessManager) -> None:
    """The innermost is current; leaving it brings back the outer one, also by an exception."""
    with manager.process("outer") as outer:
        with contextlib.suppress(ZeroDivisionError), manager.process("inner", outer.pid) as inner:
            assert inner.parent is outer
            assert current_process() is inner
            raise ZeroDivisionError

        assert inner.state is ProcessState.TERMINATED
        assert current_process() is outer


def test_a_scope_whose_process_was_ended_inside_is_left_quietly(manager: ProcessManager) -> None:
    """The first end counts."""
    with manager.process("job") as process:
        result = process.terminate()

    assert process.result is result


def test_a_scope_is_entered_once(manager: ProcessManager) -> None:
    """RuntimeError for a second entry, and for leaving what was never entered."""
    scope = manager.process("job")
    with scope, pytest.raises(RuntimeError, match="entered already"):
        scope.__enter__()
    with pytest.raises(RuntimeError, match="never entered"):
        manager.process("other").__exit__(None, None, None)


def test_a_thread_has_no_current_process_of_another(manager: ProcessManager) -> None:
    """Context variables (PEP 567) are per thread."""
    caught: list[type[BaseException]] = []

    def look() -> None:
        try:
            current_process()
        except NoCurrentProcessError as error:
            caught.append(type(error))

    with manager.process("job"):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    assert caught == [NoCurrentProcessError]
    assert issubclass(NoCurrentProcessError, LookupError)


def test_each_task_has_its_own_current_process(manager: ProcessManager) -> None:
    """Interleaved on one loop, tasks do not see one another's; a child task inherits."""

    async def job(name: str) -> list[str]:
        async with manager.process(name):
            await asyncio.sleep(0.001)
            first = current_process().name
            inherited = await asyncio.create_task(child())
            return [first, inherited]

    async def child() -> str:
        return current_process().name

    async def main() -> list[list[str]]:
        return await asyncio.gather(*(job(str(number)) for number in range(10)))

    assert asyncio.run(main()) == [[str(number)] * 2 for number in range(10)]


@pytest.mark.parametrize("where", ["another context", "another thread"])
def test_a_scope_left_in_another_context_ends_its_process_all_the_same(
    manager: ProcessManager, plugin: ThingResource, where: str
) -> None:
    """A cancel scope exited in another task than it was entered in: async fixtures do that."""
    scope = manager.process("job")
    process = contextvars.copy_context().run(scope.__enter__)
    plugin.give(process.pid)
    if where == "another context":
        scope.__exit__(None, None, None)
    else:
        in_thread(partial(scope.__exit__, None, None, None))[0].join()

    assert process.state is ProcessState.TERMINATED
    assert process.pid not in plugin.table


def test_an_async_generator_finalised_by_its_loop_ends_its_process(
    manager: ProcessManager,
) -> None:
    """A generator left half-way is closed by another task; its scope is left with it."""

    async def serve() -> AsyncGenerator[int, None]:
        async with manager.process("served") as process:
            yield process.pid

    async def main() -> int:
        generator = serve()
        pid = await asyncio.create_task(anext(generator))
        await asyncio.create_task(generator.aclose())
        return pid

    pid = asyncio.run(main())

    assert manager.get(pid).state is ProcessState.TERMINATED


class Shop:
    """A manager of things whose pid may be left out."""

    @pid_or_current
    def plain(self, pid: int) -> object:
        return pid

    @pid_or_current
    def sized(self, pid: int, size: int, *, colour: str = "red") -> object:
        return (pid, size, colour)

    @pid_or_current
    def named(self, pid: int, name: str, count: int = 1) -> object:
        return (pid, name, count)

    @pid_or_current
    def flagged(self, pid: int, flag: bool = False) -> object:
        return (pid, flag)

    @pid_or_current
    async def awaited(self, pid: int, name: str) -> object:
        """Documented."""
        return (pid, name)


SHOP = Shop()

#: The same, to call as types cannot express: the pid by name (PEP 612).
ANY_SHOP: Any = SHOP


def test_a_pid_that_is_given_is_the_pid(manager: ProcessManager) -> None:
    """By position and by keyword, within a scope and without."""
    for _ in range(2):
        assert SHOP.plain(99) == 99
        assert ANY_SHOP.plain(pid=99) == 99
        assert SHOP.sized(99, 5) == (99, 5, "red")
        assert SHOP.sized(99, 5, colour="blue") == (99, 5, "blue")
        assert SHOP.sized(99, size=5) == (99, 5, "red")
        assert ANY_SHOP.sized(size=5, pid=99) == (99, 5, "red")
        assert ANY_SHOP.sized(5, pid=99) == (99, 5, "red")
        assert SHOP.named(99, "x", 3) == (99, "x", 3)
        assert SHOP.named(99, name="x") == (99, "x", 1)
        assert SHOP.flagged(99, True) == (99, True)
        assert asyncio.run(SHOP.awaited(99, "x")) == (99, "x")


def test_a_pid_that_is_left_out_is_the_current_one(manager: ProcessManager) -> None:
    """Too few arguments, or a first one that is no int."""
    with manager.process("job") as process:
        pid = process.pid

        assert SHOP.plain() == pid
        assert SHOP.sized(5) == (pid, 5, "red")
        assert SHOP.sized(size=5) == (pid, 5, "red")
        assert SHOP.sized(5, colour="blue") == (pid, 5, "blue")
        assert SHOP.named("x") == (pid, "x", 1)
        assert SHOP.named("x", 3) == (pid, "x", 3)
        assert SHOP.named("x", count=3) == (pid, "x", 3)
        assert SHOP.named(name="x") == (pid, "x", 1)
        assert SHOP.flagged() == (pid, False)
        assert SHOP.flagged(flag=True) == (pid, True)
        assert asyncio.run(SHOP.awaited("x")) == (pid, "x")


def test_a_process_stands_for_its_pid(manager: ProcessManager) -> None:
    """In the first place and by name, whichever process is current."""
    other = manager.create_process("other")
    with manager.process("job"):
        assert SHOP.plain(other) == other.pid
        assert SHOP.sized(other, 5) == (other.pid, 5, "red")
        assert SHOP.named(other, name="x") == (other.pid, "x", 1)
        assert ANY_SHOP.plain(pid=other) == other.pid


def test_true_is_no_pid(manager: ProcessManager) -> None:
    """A bool is an int to Python; process 1 must not get what was meant for the current one."""
    with manager.process("job") as process:
        assert SHOP.flagged(True) == (process.pid, True)


@pytest.mark.parametrize("call", [lambda: SHOP.plain(), lambda: SHOP.named("x")])
def test_without_a_current_process_there_is_an_error(call: object) -> None:
    """NoCurrentProcessError says what to do."""
    with pytest.raises(NoCurrentProcessError, match="pass a pid, or work inside"):
        call()  # type: ignore[operator]  # a lambda


@pytest.mark.parametrize("pid", ["1", 1.5, None])
def test_a_pid_keyword_that_is_no_int_is_refused(pid: object) -> None:
    """TypeError that shows it."""
    with pytest.raises(TypeError, match="pid must be an int"):
        ANY_SHOP.plain(pid=pid)


def test_the_method_keeps_its_name_and_text() -> None:
    """Documentation tools see what was written."""
    assert Shop.awaited.__doc__ == "Documented."
