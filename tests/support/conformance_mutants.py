"""Kinds that are broken in one way each, and what the conformance kit has to say of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from conformance_boxes import PLACE, SIZE, Box, Boxes

from probate import (
    CleanupStats,
    Ordering,
    Outcome,
    OwnershipTable,
    ProcessTerminatedError,
    ResourceKind,
    ResourceUsage,
    hookimpl,
    runs_inline,
)
from probate.journal import reclaim_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate import ResourceId, ResourceRecord
    from probate.hookspecs import AnyFuture
    from probate.journal import Named


class CountsOneMore(Boxes):
    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        stats = super().cleanup(pid)
        more = stats.resources_freed + 1
        return CleanupStats(resources_freed=more, bytes_freed=stats.bytes_freed)


class CountsNoBytes(Boxes):
    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        stats = super().cleanup(pid)
        return stats.model_copy(update={"bytes_freed": 0})


class HasSecondCounter(Boxes):
    def __init__(self) -> None:
        super().__init__()
        self.counter: dict[int, int] = {}

    def make(self, pid: int) -> Box:
        box = super().make(pid)
        self.counter[pid] = self.counter.get(pid, 0) + 1
        return box

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return self.counter.get(pid, 0) > 0

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        self.counter.pop(pid, None)
        return super().cleanup(pid)


class SharesItsTable(Boxes):
    shared: OwnershipTable[Box] = OwnershipTable("boxes", Box.close)

    def __init__(self) -> None:
        self.table = self.shared


class SharesItsDictionary(Boxes):
    """Behind a table, which looks as it should, and is never used."""

    boxes: dict[int, list[Box]] = {}  # noqa: RUF012  that is the fault

    def make(self, pid: int) -> Box:
        self.boxes.setdefault(pid, []).append(box := PLACE.new_box())
        return box

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return bool(self.boxes.get(pid))

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        boxes = self.boxes.pop(pid, [])
        for box in boxes:
            box.close()
        return CleanupStats(resources_freed=len(boxes), by_type={"boxes": len(boxes)})


class AnswersWithAList(Boxes):
    @hookimpl
    def has_resources(self, pid: int) -> Any:
        return self.table.resources(pid)


class QuiesceBlocks(Boxes):
    @hookimpl
    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        over = threading.Event()
        PLACE.undo.callback(over.set)
        while any(box.users for box in self.table.resources(pid)) and not over.wait(0.05):
            continue
        return ()


class QuiesceForces(Boxes):
    @hookimpl
    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        self.table.cleanup(pid)
        return ()


class QuiesceRepeatsItself(Boxes):
    """Quiesces once only."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[int] = set()

    @hookimpl
    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        if pid in self.asked:
            raise ValueError("asked before")
        self.asked.add(pid)
        return [Future()]


class QuiesceReturnsNoFutures(Boxes):
    @hookimpl
    def quiesce(self, pid: int) -> Any:
        return self.table.resources(pid)


class DeletesWhatIsForeign(Boxes):
    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        stats = super().cleanup(pid)
        owned = {box.path for each in self.table.pids() for box in self.table.resources(each)}
        for path in Path(PLACE.folder).iterdir():
            if str(path) not in owned:
                path.unlink()
        return stats


class LeaksDescriptor(Boxes):
    def release(self, box: Box) -> Outcome:
        kept = os.dup(box.fd)
        PLACE.undo.callback(os.close, kept)
        return super().release(box)


class LeaksThread(Boxes):
    def make(self, pid: int) -> Box:
        over = threading.Event()
        PLACE.undo.callback(over.set)
        threading.Thread(target=over.wait, name="leaked").start()
        return super().make(pid)


class RaisesInCleanup(Boxes):
    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        if self.table.cleanup(pid).resources_freed:
            raise OSError("no disk")
        return CleanupStats()


class StopsAtTheFirstFailure(Boxes):
    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        freed = 0
        for resource_id, box in self.table.owned(pid):
            if not Path(box.path).exists():
                raise OSError("it is gone")
            self.table.release(pid, resource_id)
            box.close()
            freed += 1
        return CleanupStats(resources_freed=freed, by_type={"boxes": freed} if freed else {})


class ReleasesTheOldestFirst(Boxes):
    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        boxes = self.table.resources(pid)
        for box in boxes:
            self.table.give_back(pid, box)
        freed = len(boxes)
        return CleanupStats(resources_freed=freed, by_type={"boxes": freed} if freed else {})


class CannotCleanTwice(Boxes):
    def __init__(self) -> None:
        super().__init__()
        self.cleaned: dict[int, CleanupStats] = {}

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        self.cleaned[pid] = self.cleaned.get(pid) or super().cleanup(pid)
        return self.cleaned[pid]


class ForgetsReclaim(Boxes):
    reclaim = None  # type: ignore[assignment]


class ReclaimsByName(Boxes):
    @hookimpl
    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        path = Path(record.identity["path"])
        if not path.exists():
            return Outcome.ALREADY_GONE
        if not dry_run:
            path.unlink()
        return Outcome.RELEASED


class ReclaimsInDryRuns(Boxes):
    @hookimpl
    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        return super().reclaim(record, dry_run=False)


class SaysReclaimed(Boxes):
    @hookimpl
    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        return Outcome.RELEASED


class TellsNoJournal(Boxes):
    def named(self, path: str) -> Named[Box] | None:
        return None


class ReclaimsWhatIsInUse(Boxes):
    @hookimpl
    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        return reclaim_path(record, dry_run, in_use=lambda _pin, _status: "")


class ReclaimsTheConfirmedOnly(Boxes):
    @hookimpl
    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        assert record.state == "confirmed"
        return super().reclaim(record, dry_run)


class SaysOfIntentsThatTheyAreGone(Boxes):
    @hookimpl
    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        if record.state == "intent":
            return Outcome.ALREADY_GONE
        return super().reclaim(record, dry_run)


class AdoptsWithoutJournal(Boxes):
    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.table.add(pid, resource) if isinstance(resource, Box) else None


class NotesTwice(Boxes):
    def make(self, pid: int) -> Box:
        box = super().make(pid)
        self.table._intend(pid, self.named(box.path))
        return box


class ShutsDownWhatIsShared(Boxes):
    def release(self, box: Box) -> Outcome:
        box.near.shutdown(socket.SHUT_RDWR)
        return super().release(box)


class SaysReleasedOfWhatIsBusy(Boxes):
    def release(self, box: Box) -> Outcome:
        outcome = super().release(box)
        return Outcome.RELEASED if outcome is Outcome.BUSY else outcome


class SwallowsBusy(Boxes):
    def release(self, box: Box) -> Outcome:
        outcome = super().release(box)
        return Outcome.ALREADY_GONE if outcome is Outcome.BUSY else outcome


class ForgetsWhatIsBusy(Boxes):
    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        stats = super().cleanup(pid)
        for resource_id, _ in self.table.owned(pid):
            self.table.release(pid, resource_id)
        return stats


class ReleasesNothing(Boxes):
    def release(self, box: Box) -> Outcome:
        box.close_only()
        return Outcome.RELEASED


class OwnsForTheFirst(Boxes):
    def make(self, pid: int) -> Box:
        return super().make(1)


class OwnsNothing(Boxes):
    def make(self, pid: int) -> Box:
        return PLACE.new_box()


class AdoptsAnything(Boxes):
    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        taken: Any = resource
        return super().adopt(pid, taken) or self.table.add(pid, taken)


class RaisesAtWhatIsForeign(Boxes):
    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return self.table.add(pid, resource) if resource.path else None  # type: ignore[attr-defined,arg-type]


class AdoptsTwice(Boxes):
    identity = None  # type: ignore[assignment]


class AdoptsNothing(Boxes):
    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        return None


class MakesBeforeItAsks(Boxes):
    def make(self, pid: int) -> Box:
        box = PLACE.new_box()
        self.table.add(pid, box)
        return box


class MakesForTheEnded(Boxes):
    def make(self, pid: int) -> Box:
        # As long as real things take: else all are made before the end begins, now and then.
        time.sleep(0.001)
        box = PLACE.new_box()
        with contextlib.suppress(ProcessTerminatedError):
            self.table.add(pid, box)
        return box


class HidesItsTable(Boxes):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [self.table]
        del self.table

    def __getattr__(self, name: str) -> Any:
        if name == "table":
            return vars(self)["hidden"][0]
        raise AttributeError(name)


class SearchesAll(Boxes):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[int, Box]] = []

    def make(self, pid: int) -> Box:
        self.all.append((pid, box := super().make(pid)))
        return box

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return any(owner == pid and box.fd >= 0 for owner, box in self.all)


class CleansUpAmongAll(Boxes):
    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        if pid in self.table.pids():
            return super().cleanup(pid)
        return CleanupStats()


class PromisesNotToBlock(Boxes):
    @hookimpl
    @runs_inline
    def cleanup(self, pid: int) -> CleanupStats:
        return super().cleanup(pid)


class NeedsALoopOfItsOwn(Boxes):
    @hookimpl
    @runs_inline
    def cleanup(self, pid: int) -> CleanupStats:
        cleaning = self.clean(pid)
        try:
            return asyncio.run(cleaning)
        finally:
            cleaning.close()

    async def clean(self, pid: int) -> CleanupStats:
        return self.table.cleanup(pid)


class CountsNoBytesAgainstLimits(Boxes):
    def make(self, pid: int) -> Box:
        return self.table.acquire(pid, PLACE.new_box)

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        usage = self.table.usage(pid)
        return usage.model_copy(update={"nbytes": SIZE * usage.count})


class ForgetsWhatIsBusyByHand(Boxes):
    def give_back(self, pid: int, box: Box) -> None:
        self.table.disown(pid, box)
        self.release(box)


class QuiesceHasNoMark(Boxes):
    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        return ()


class OverridesWithoutMark(ResourceKind):
    """Overrides what has a mark in its base, and so has none."""

    def __init__(self) -> None:
        super().__init__(OwnershipTable("boxes", Box.close), Ordering(15))

    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        return ()


class HidesWithAnAttribute(ResourceKind):
    """Gives its quiesce to an attribute, not to its base, whose own has the mark."""

    def __init__(self) -> None:
        super().__init__(OwnershipTable("boxes", Box.close), Ordering(15))
        self.quiesce = self.ask  # type: ignore[method-assign]  # that is the fault

    def ask(self, pid: int) -> Iterable[AnyFuture]:
        return ()


class CleanupTakesAnything(Boxes):
    @hookimpl
    def cleanup(self, *args: int) -> CleanupStats:
        return super().cleanup(*args)


class ReclaimKnowsNoDryRun(Boxes):
    @hookimpl
    def reclaim(self, record: ResourceRecord) -> Outcome:  # type: ignore[override]
        return super().reclaim(record, dry_run=False)


class CleanupYields(Boxes):
    @hookimpl
    def cleanup(self, pid: int) -> Any:
        yield super().cleanup(pid)


class IsBeforeNobody(Boxes):
    before = ("sokcets",)


class IsBeforeItself(Boxes):
    before = ("boxes",)


class LacksHasResources(Boxes):
    has_resources = None  # type: ignore[assignment]


class MisspellsAHook(Boxes):
    @hookimpl
    def quiece(self, pid: int) -> Iterable[AnyFuture]:
        return ()


_ONE: Final = Boxes()


def always_the_same() -> Boxes:
    return _ONE


class Mutant(NamedTuple):
    """A broken kind, the check that it fails, and what the message says at least."""

    kind: Any
    check: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind.__name__}-{self.check}"


MUTANTS: Final = (
    Mutant(CountsOneMore, "accounts_tell_what_was_done", "wrong count: 3 were owned"),
    Mutant(CountsNoBytes, "accounts_tell_what_was_done", "wrong count of bytes"),
    Mutant(HasSecondCounter, "has_resources_tells_the_truth", "second counter"),
    Mutant(HasSecondCounter, "what_is_adopted_is_released", "second counter"),
    Mutant(HasSecondCounter, "what_is_transferred_lives_on", "second counter"),
    Mutant(SharesItsTable, "static", "one table for all managers"),
    Mutant(SharesItsTable, "managers_are_apart", "serves another orchestrator"),
    Mutant(SharesItsDictionary, "managers_are_apart", "one table for all managers"),
    Mutant(AnswersWithAList, "has_resources_tells_the_truth", "neither True nor False"),
    Mutant(QuiesceBlocks, "quiesce_is_gentle", "quiesce() blocks"),
    Mutant(QuiesceForces, "quiesce_is_gentle", "force in quiesce()"),
    Mutant(QuiesceRepeatsItself, "quiesce_is_gentle", "a second time raises ValueError"),
    Mutant(QuiesceReturnsNoFutures, "quiesce_is_gentle", "which is no future"),
    Mutant(DeletesWhatIsForeign, "owners_are_apart", "gone when a process ended that did not own"),
    Mutant(LeaksDescriptor, "nothing_remains", "left when all is released: fd "),
    Mutant(LeaksThread, "nothing_remains", "runs on (leaked)"),
    Mutant(RaisesInCleanup, "cleanup_raises_nothing", "cleanup() raises OSError: no disk"),
    Mutant(RaisesInCleanup, "accounts_tell_what_was_done", "OSError: no disk"),
    Mutant(StopsAtTheFirstFailure, "one_failure_stops_nobody", "cleanup() raises where one of"),
    Mutant(ReleasesTheOldestFirst, "newest_is_released_first", "wrong order"),
    Mutant(CannotCleanTwice, "cleanup_can_be_repeated", "not idempotent"),
    Mutant(ForgetsReclaim, "the_dead_leave_nothing", "cannot give back what is not its own"),
    Mutant(ReclaimsByName, "successors_are_left_alone", "reclaims by name"),
    Mutant(ReclaimsInDryRuns, "the_dead_leave_nothing", "in a dry run"),
    Mutant(SaysReclaimed, "the_dead_leave_nothing", "and it is still there"),
    Mutant(SaysReclaimed, "successors_are_left_alone", "which was gone"),
    Mutant(TellsNoJournal, "the_dead_leave_nothing", "the journal has 0 rows"),
    Mutant(ReclaimsWhatIsInUse, "what_is_in_use_is_kept", "while somebody uses it"),
    Mutant(ReclaimsTheConfirmedOnly, "what_was_never_confirmed_is_settled", "in state 'intent'"),
    Mutant(SaysOfIntentsThatTheyAreGone, "what_was_never_confirmed_is_settled", "is still there"),
    Mutant(AdoptsWithoutJournal, "what_the_dead_adopted_goes_too", "the journal has 0 rows"),
    Mutant(NotesTwice, "the_dead_leave_nothing", "the journal has 2 rows"),
    Mutant(NotesTwice, "the_journal_forgets_what_is_gone", "given back before its host died"),
    Mutant(HasSecondCounter, "forked_children_own_nothing", "owns what its parent does"),
    Mutant(ShutsDownWhatIsShared, "owners_are_apart", "was it shut down, not closed?"),
    Mutant(SaysReleasedOfWhatIsBusy, "busy_stays_owned", "says RELEASED of what is in use"),
    Mutant(SwallowsBusy, "busy_stays_owned", "BUSY is swallowed"),
    Mutant(ForgetsWhatIsBusy, "busy_stays_owned", "what is BUSY is owned no more"),
    Mutant(ReleasesNothing, "accounts_tell_what_was_done", "3 of 3 still there although"),
    Mutant(OwnsForTheFirst, "has_resources_tells_the_truth", "owned by the wrong process"),
    Mutant(OwnsNothing, "has_resources_tells_the_truth", "it has no owner"),
    Mutant(AdoptsAnything, "what_is_foreign_is_not_adopted", "adopts anything"),
    Mutant(RaisesAtWhatIsForeign, "what_is_foreign_is_not_adopted", "is to return None"),
    Mutant(AdoptsTwice, "what_is_adopted_is_released", "adopted by two owners"),
    Mutant(AdoptsNothing, "what_is_adopted_is_released", "does not take what is of the kind"),
    Mutant(MakesBeforeItAsks, "limits_hold", "made before it is refused"),
    Mutant(MakesBeforeItAsks, "the_ended_acquire_nothing", "made all the same"),
    Mutant(MakesForTheEnded, "the_ended_acquire_nothing", "acquired after its owner's end"),
    Mutant(MakesForTheEnded, "cleanup_acquires_nothing", "acquired while its owner ends"),
    Mutant(MakesForTheEnded, "nothing_is_lost_in_a_race", "it is lost"),
    Mutant(OwnsNothing, "limits_hold", "limits do not hold"),
    Mutant(HidesItsTable, "static", "no OwnershipTable"),
    Mutant(HidesItsTable, "limits_hold", "keeps no OwnershipTable"),
    Mutant(SearchesAll, "others_cost_nothing", "has_resources() takes"),
    Mutant(CleansUpAmongAll, "others_cost_nothing", "cleanup() looks at what others own"),
    Mutant(PromisesNotToBlock, "a_hang_is_reported", "beyond its deadline"),
    Mutant(NeedsALoopOfItsOwn, "event_loops_end_owners", "asyncio.run() cannot be called"),
    Mutant(CountsNoBytesAgainstLimits, "limits_hold", "over the limit of bytes"),
    Mutant(ForgetsWhatIsBusyByHand, "busy_stays_owned", "given back by hand, is owned no more"),
    Mutant(QuiesceHasNoMark, "static", "quiesce() is there, but has no mark"),
    Mutant(OverridesWithoutMark, "static", "quiesce() is there, but has no mark"),
    Mutant(HidesWithAnAttribute, "static", "quiesce() is there, but has no mark"),
    Mutant(CleanupTakesAnything, "static", "cleanup(*args) is called with nothing"),
    Mutant(ReclaimKnowsNoDryRun, "static", "is called with record"),
    Mutant(CleanupYields, "static", "cleanup() is a generator function"),
    Mutant(IsBeforeNobody, "static", "names 'sokcets', and no kind is called so: did you mean"),
    Mutant(IsBeforeItself, "static", "`before` names the kind itself"),
    Mutant(LacksHasResources, "static", "lacks the required hook has_resources()"),
    Mutant(MisspellsAHook, "static", "did you mean 'quiesce'?"),
    Mutant(always_the_same, "static", "the same object each time"),
)
