"""Things change owners through the orchestrator, by the native object."""

from __future__ import annotations

import pytest
from plugins_things import Thing, ThingResource, managed

from probate import (
    NotOwnedError,
    OwnershipTable,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
)


def test_a_thing_outlives_the_owner_that_gave_it_away() -> None:
    """Same id, new owner: the old one's end leaves it, the new one's releases it."""
    first, second = ThingResource("first", 2), ThingResource("second", 1)
    with managed(first, second) as manager:
        giver, taker = (manager.create_process(name) for name in "ab")
        resource_id = giver.adopt(thing := Thing())

        assert giver.transfer(thing, taker) == resource_id
        assert giver.terminate().stats.resources_freed == 0
        assert thing.releases == 0
        assert taker.terminate().stats.by_type == {"first": 1}
        assert thing.releases == 1


def test_only_its_owner_gives_a_thing_away() -> None:
    """NotOwnedError names the owner if there is one, and nothing has changed."""
    plugin = ThingResource()
    plugin.table = OwnershipTable("things", identity=lambda thing: thing)
    with managed(ThingResource("other", 9), plugin) as manager:
        owner, thief = (manager.create_process(name) for name in "ab")
        plugin.table.add(owner.pid, thing := Thing())

        with pytest.raises(NotOwnedError, match=f"process {owner.pid} does"):
            manager.orchestrator.transfer(thief.pid, thing, thief.pid)
        with pytest.raises(NotOwnedError, match="nobody here does"):
            owner.transfer(Thing(), thief)

        assert plugin.table.count(owner.pid) == 1


def test_a_receiver_that_may_not_own_gets_nothing() -> None:
    """Terminated, or at its limit: the giver has it still."""
    plugin = ThingResource()
    with managed(plugin, limits=ResourceLimits(max_count=1)) as manager:
        giver, full, ended = (manager.create_process(name) for name in "abc")
        thing = plugin.give(giver.pid)
        plugin.give(full.pid)
        ended.terminate()

        with pytest.raises(ResourceLimitExceeded):
            giver.transfer(thing, full)
        with pytest.raises(ProcessTerminatedError):
            giver.transfer(thing, ended)

        assert plugin.table.find(giver.pid, thing)
