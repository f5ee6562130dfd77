"""An OwnershipTable under any sequence of calls is what a plain dictionary says it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from plugins_things import InlineThingResource, Thing, managed

from probate import (
    NotOwnedError,
    Outcome,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
)

if TYPE_CHECKING:
    from probate import ResourceId

MAX_COUNT, MAX_BYTES = 4, 100


class AnySequence(RuleBasedStateMachine):
    """`model` is the truth: owner to {id: (thing, bytes)}, oldest first."""

    pids: Bundle[int] = Bundle("pids")
    ids: Bundle[ResourceId] = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.plugin = InlineThingResource()
        self.table = self.plugin.table
        limits = ResourceLimits(max_count=MAX_COUNT, max_bytes=MAX_BYTES)
        self.manager = managed(self.plugin, limits=limits)
        self.model: dict[int, dict[ResourceId, tuple[Thing, int]]] = {}
        self.ended: set[int] = set()

    def teardown(self) -> None:
        for owned in self.model.values():
            for thing, _ in owned.values():
                thing.behave = None
        self.manager.close()

        assert self.table.pids() == []

    def fits(self, pid: int, nbytes: int) -> bool:
        held = self.model[pid].values()
        total = sum(each for _, each in held)
        return len(held) < MAX_COUNT and total + nbytes <= MAX_BYTES

    @rule(target=pids)
    def create(self) -> int:
        pid = self.manager.create_process("p").pid

        assert pid not in self.model

        self.model[pid] = {}
        return pid

    @rule(target=ids, pid=pids, nbytes=st.integers(0, 60), busy=st.booleans())
    def add(self, pid: int, nbytes: int, busy: bool) -> ResourceId:
        thing = Thing("thing", (lambda: Outcome.BUSY) if busy else None)
        try:
            resource_id = self.table.add(pid, thing, nbytes)
        except ProcessTerminatedError:
            assert pid in self.ended
        except ResourceLimitExceeded:
            assert not self.fits(pid, nbytes)
        else:
            assert pid not in self.ended
            assert self.fits(pid, nbytes)

            self.model[pid][resource_id] = (thing, nbytes)
            return resource_id
        return self.nothing()

    def nothing(self) -> ResourceId:
        """Return an id that was issued and released."""
        pid = self.manager.create_process("other").pid
        resource_id = self.table.add(pid, Thing())
        self.manager.terminate_process(pid)
        return resource_id

    @rule(pid=pids, resource_id=ids)
    def release(self, pid: int, resource_id: ResourceId) -> None:
        expected = self.model[pid].pop(resource_id, None)
        is_anothers = any(resource_id in owned for owned in self.model.values())
        try:
            thing = self.table.release(pid, resource_id)
        except NotOwnedError:
            assert is_anothers
        else:
            assert not is_anothers
            assert thing is (None if expected is None else expected[0])

    @rule(pid=pids, to=pids, resource_id=ids)
    def transfer(self, pid: int, to: int, resource_id: ResourceId) -> None:
        entry = self.model[pid].get(resource_id)
        try:
            self.table.transfer(pid, resource_id, to)
        except NotOwnedError:
            assert entry is None
        except ProcessTerminatedError:
            assert to in self.ended
        except ResourceLimitExceeded:
            assert entry is not None
            assert not self.fits(to, entry[1])
        else:
            assert entry is not None

            if to != pid:
                self.model[to][resource_id] = self.model[pid].pop(resource_id)

    @rule(pid=pids)
    def clean(self, pid: int) -> None:
        owned = self.model[pid]
        freed = {rid: entry for rid, entry in owned.items() if entry[0].behave is None}
        stats = self.table.cleanup(pid, Thing.release)

        assert stats.resources_freed == len(freed)
        assert stats.bytes_freed == sum(nbytes for _, nbytes in freed.values())
        assert stats.errors_encountered == len(owned) - len(freed)

        self.model[pid] = {rid: entry for rid, entry in owned.items() if rid not in freed}

    @rule(pid=pids)
    def terminate(self, pid: int) -> None:
        for thing, _ in self.model[pid].values():
            thing.behave = None
        result = self.manager.terminate_process(pid)

        if pid not in self.ended:
            assert result.stats.resources_freed == len(self.model[pid])
        assert result.is_success

        self.ended.add(pid)
        self.model[pid] = {}

    @invariant()
    def table_and_model_agree(self) -> None:
        assert set(self.table.pids()) == {pid for pid, owned in self.model.items() if owned}
        for pid, owned in self.model.items():
            assert (pid in self.table) == bool(owned)
            assert dict(self.table.owned(pid)) == {rid: thing for rid, (thing, _) in owned.items()}
            assert [rid for rid, _ in self.table.owned(pid)] == list(owned)[::-1]
            assert self.table.count(pid) == len(owned)
            assert self.table.nbytes(pid) == sum(nbytes for _, nbytes in owned.values())

    @invariant()
    def nothing_is_kept_of_former_owners_but_of_one(self) -> None:
        kept = self.table._by_owner._by_pid.values()
        assert len(kept) - sum(bool(owned) for owned in self.model.values()) in (0, 1)


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
