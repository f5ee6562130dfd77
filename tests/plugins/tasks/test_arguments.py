"""Bad arguments: a clear error, before anything is made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from probate_tasks import AsyncTaskManager

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ProcessManager


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("coroutine", "name", "error"),
    [
        (wait_for_ever, None, TypeError),
        (7, None, TypeError),
        (None, None, TypeError),
        (asyncio.sleep, None, TypeError),
        ("coroutine", 7, TypeError),
        ("coroutine", b"name", TypeError),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_made(
    manager: ProcessManager,
    tasks: AsyncTaskManager,
    coroutine: object,
    name: object,
    error: type[Exception],
) -> None:
    """A clear error, nothing owned, and no complaint of a coroutine that was never awaited."""

    async def main() -> None:
        process = manager.create_process("bad")
        given: Any = wait_for_ever() if coroutine == "coroutine" else coroutine
        with pytest.raises(error):
            tasks.spawn(process.pid, given, name)  # type: ignore[call-overload]  # what is refused

        assert not manager.orchestrator.has_resources(process.pid)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_without_a_running_loop_there_is_a_clear_error(
    manager: ProcessManager, tasks: AsyncTaskManager
) -> None:
    """RuntimeError, nothing owned, and the coroutine is closed."""
    process = manager.create_process("sync")
    coroutine = wait_for_ever()

    with pytest.raises(RuntimeError, match="event loop that runs on this thread"):
        tasks.spawn(process.pid, coroutine)

    assert coroutine.cr_frame is None  # type: ignore[attr-defined]  # an `async def`'s
    assert not manager.orchestrator.has_resources(process.pid)


@pytest.mark.parametrize("function", [7, None, "print", wait_for_ever])
def test_what_is_no_function_is_refused(
    manager: ProcessManager, tasks: AsyncTaskManager, function: Any
) -> None:
    """TypeError, and nothing owned; a coroutine function belongs to spawn."""
    process = manager.create_process("bad")

    with pytest.raises(TypeError):
        tasks.submit(process.pid, function)

    assert not manager.orchestrator.has_resources(process.pid)


@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_a_bad_number_of_threads_is_refused(limit: Any, error: type[Exception]) -> None:
    """At least one, and an int."""
    with pytest.raises(error, match="max_threads"):
        AsyncTaskManager(max_threads=limit)


@pytest.mark.parametrize("method", ["status", "cancel", "close"])
@pytest.mark.parametrize("thing", ["task", 1.5, object(), asyncio.sleep])
def test_what_is_no_task_is_refused(
    manager: ProcessManager, tasks: AsyncTaskManager, method: str, thing: Any
) -> None:
    """TypeError, rather than 'not owned'."""
    process = manager.create_process("bad")
    call: Callable[[int, Any], object] = getattr(tasks, method)

    with pytest.raises(TypeError, match="expected a task"):
        call(process.pid, thing)


@pytest.mark.parametrize("thing", [7, "task", object(), asyncio.sleep])
def test_other_objects_are_left_to_other_kinds(tasks: AsyncTaskManager, thing: object) -> None:
    """None, not an error."""
    assert tasks.adopt(1, thing) is None
