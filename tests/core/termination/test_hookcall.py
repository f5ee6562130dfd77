"""What a hook may ask of the termination that calls it, and tell it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from plugins_things import InlineThingResource, ThingResource, managed, orchestrate

from probate import Outcome, add_note, current_grace

if TYPE_CHECKING:
    from collections.abc import Callable

PID = 7


def asks(plugin: type[ThingResource]) -> tuple[ThingResource, list[float | None]]:
    """A kind that asks for the grace in `quiesce`."""
    things, answers = plugin(), []

    def quiesce() -> list[Any]:
        answers.append(current_grace())
        return []

    things.faults["quiesce"] = quiesce
    return things, answers


@pytest.mark.parametrize("plugin", [ThingResource, InlineThingResource])
def test_quiesce_is_told_how_much_time_there_is(plugin: type[ThingResource]) -> None:
    """On whichever thread it is called; within a manager's termination, and by the orchestrator."""
    things, answers = asks(plugin)
    things.give(PID)
    orchestrator = orchestrate(things)
    orchestrator.cleanup_process(PID, grace=0.25)
    things.give(PID)
    asyncio.run(orchestrator.cleanup_process_async(PID, grace=0))
    managed_things, more = asks(plugin)
    with managed(managed_things) as manager:
        process = manager.create_process("one")
        managed_things.give(process.pid)
        process.terminate(0.5)

    assert (answers, more) == ([0.25, 0.0], [0.5])
    assert current_grace() is None


def test_the_deadline_is_no_time_to_stop() -> None:
    """Of a grace that outlasts the deadline, only so much is promised."""
    things, answers = asks(ThingResource)
    with managed(things, deadline=3.0) as manager:
        process = manager.create_process("one")
        things.give(process.pid)
        process.terminate(60)

    assert answers == [3.0]


def noting(*notes: str, outcome: Outcome = Outcome.RELEASED) -> Callable[[], Outcome]:
    def release() -> Outcome:
        for note in notes:
            add_note(note)
        return outcome

    return release


@pytest.mark.parametrize("plugin", [ThingResource, InlineThingResource])
def test_a_note_is_in_the_account_and_is_no_error(
    plugin: type[ThingResource], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and nothing else of the account changes for it."""
    things = plugin()
    with managed(things) as manager:
        process = manager.create_process("one")
        things.give(process.pid, behave=noting("something stays"))
        result = process.terminate()

    assert result.notes == ("something stays",)
    assert result.is_success
    assert str(result) == f"PID {process.pid} cleanup: 1 resources freed, 0 bytes freed, 0 errors"
    assert [r.getMessage() for r in caplog.records] == [
        f"process {process.pid} 'one': note: something stays"
    ]


def test_what_is_tried_again_is_noted_once() -> None:
    """And outside of a termination it is dropped."""
    add_note("nowhere")
    attempts: list[None] = []

    def release() -> Outcome:
        add_note("something stays")
        attempts.append(None)
        return Outcome.BUSY if len(attempts) == 1 else Outcome.RELEASED

    things = ThingResource()
    orchestrator = orchestrate(things)
    things.give(PID, behave=release)
    things.give(PID)
    result = orchestrator.cleanup_process(PID, grace=0)

    assert len(attempts) == 2
    assert result.notes == ("something stays",)
