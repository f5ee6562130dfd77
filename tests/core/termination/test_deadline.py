"""The deadline of a termination: when nothing more is tried."""

from __future__ import annotations

import time

from plugins_things import InlineThingResource, busy, orchestrate

PID = 7
DEADLINE = 0.02


def test_what_is_busy_when_the_deadline_is_over_is_not_tried_again() -> None:
    """Although each pass frees something: what the first one has left is in the account as BUSY."""
    plugin = InlineThingResource()
    things = [plugin.give(PID, f"thing {times}", busy(times)) for times in range(1, 20)]

    def outlast() -> None:
        over = time.perf_counter() + DEADLINE
        while time.perf_counter() <= over:
            time.sleep(DEADLINE)

    plugin.give(PID, "slow", outlast)
    result = orchestrate(plugin).cleanup_process(PID, grace=0, deadline=DEADLINE)

    assert [thing.releases for thing in things] == [1] * len(things)
    assert result.stats.resources_freed == 1
    assert [failure.outcome for failure in result.errors] == ["busy"] * len(things)
    assert plugin.table.count(PID) == len(things)
