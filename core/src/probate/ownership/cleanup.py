"""The release of all that one owner holds, and the account of it."""

from __future__ import annotations

import time
from collections import deque
from itertools import islice, repeat
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

from probate.errors import InterruptedCleanup, ReleaseError, describe_error, safe_repr
from probate.outcome import Outcome, checked_outcome
from probate.ownership.index import key_of
from probate.system.interrupts import fell_in
from probate.system.lazy import lazy_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import models
    from probate.journal.host import Row
    from probate.outcome import ResourceId
    from probate.ownership.holdings import Holdings
    from probate.ownership.index import ResourceIndex
else:
    models = lazy_module("probate.models")

T = TypeVar("T")

#: The messages of outcomes that came without one.
_MESSAGES: Final = {
    Outcome.BUSY: "still in use",
    Outcome.TIMEOUT: "did not come free in time",
    Outcome.FAILED: "its release failed",
    Outcome.REFUSED: "not ours to release, or still in use by others",
    Outcome.UNSETTLED: "nobody knows yet: somebody else is to end it",
}


@final
class Cleanup(Generic[T]):
    """Releases all that one owner holds, and keeps the account of it. Used once.

    An interrupt may come between any two steps. So whatever is no longer in the holdings and has
    no outcome yet is noted in `_taken_out`, and `recover` decides what becomes of it.
    """

    def __init__(
        self,
        kind: str,
        describe: Callable[[T], str],
        holdings: Holdings[T],
        index: ResourceIndex[T],
        sites: dict[ResourceId, str],
        rows: dict[ResourceId, Row],
        *,
        repeats: int = 0,
    ) -> None:
        """`repeats` is how often a release is called once more that an exception fell into."""
        self._kind = kind
        self._describe = describe
        self.holdings = holdings
        self._identity_of = index.identity
        self._index = index
        self._sites = sites
        self._rows = rows
        self._started = time.perf_counter()
        self._failures: list[models.CleanupFailure] = []
        self._interrupt: BaseException | None = None
        # What fell in between two steps, and is yet to be recovered from.
        self._fallen: BaseException | None = None
        self._freed = self._nbytes = 0
        #: What stays owned, with its bytes, newest first.
        self.kept: list[tuple[ResourceId, T, int]] = []
        # What was taken out and has no outcome yet, newest first; and the identities, asked for
        # before any release, which may well change what it is given.
        self._taken_out: list[tuple[ResourceId, T]] = []
        self._identities: list[object] = []
        # Of a resource that is released alone: whether that has begun, and what came of it.
        self._begun = False
        self._outcome: Outcome | None = None
        self._repeats = repeats
        # Of those that are released at once: what is left, oldest first; None before that.
        self._left: list[T] | None = None

    def run(
        self,
        release: Callable[[T], object],
        release_many: Callable[[list[T]], object] | None,
        drop_if_empty: Callable[[], bool],
    ) -> None:
        """Release everything until `drop_if_empty` says that nothing has come in meanwhile."""
        while True:
            try:
                if self._fallen is not None:
                    self.recover(self._fallen)
                    self._fallen = None
                if release_many is not None and len(self.holdings) > 1:
                    self.at_once(release_many)
                    # Once: what it leaves is for `release`.
                    release_many = None
                self.one_by_one(release)
                if drop_if_empty():
                    return
            except BaseException as error:
                # Noted before anything is called: then it can be dealt with whatever falls in.
                self._fallen = error
                if not fell_in(error):
                    raise

    def one_by_one(self, release: Callable[[T], object]) -> None:
        """Release what is in the holdings one after the other, newest first."""
        newest = iter(self.holdings.popitem, None)
        taken, identities, identity_of = self._taken_out, self._identities, self._identity_of
        while self.holdings:
            try:
                # Taken out and noted in one step: no interrupt comes in between.
                taken.extend(islice(newest, 1))
            except KeyError:
                return
            resource = taken[0][1]
            if identity_of is not None:
                identities.append(identity_of(resource))
            self._begun = True
            try:
                answer = release(resource)
            except BaseException as error:
                if self._repeats and fell_in(error):
                    raise
                self._outcome = self._note_error(resource, error)
            else:
                self._outcome = self._note_answer(resource, answer)
            self._record_outcome()

    def at_once(self, release_many: Callable[[list[T]], object]) -> None:
        """Have `release_many` release what is in the holdings; put back what it leaves."""
        try:
            try:  # noqa: SIM105  `suppress` takes longer than the rest
                # Each taken out and noted in one step, until a KeyError says that it was the last.
                self._taken_out.extend(iter(self.holdings.popitem, None))
            except KeyError:
                pass
            resources = [each[1] for each in reversed(self._taken_out)]
            if self._identity_of is not None:
                self._identities.extend(map(self._identity_of, resources))
            self._left = resources
            release_many(resources)
        except BaseException as error:
            # If it was an error, the release of what is left meets it again, and reports it.
            self._note_interrupt(error)
        self._reconcile()

    def recover(self, error: BaseException) -> None:
        """Note an interrupt that came between two steps, and deal with what was taken out."""
        self._note_interrupt(error)
        taken = self._taken_out
        if self._begun and taken and self._outcome is None:
            if self._repeats:
                self._repeats -= 1
            else:
                # It may have been released, and is not a second time.
                self._outcome = self._note_error(taken[0][1], error)
        if self._outcome is not None:
            self._record_outcome()
        else:
            self._reconcile()

    def account(self) -> models.CleanupStats:
        """Return the account. Raises InterruptedCleanup if there was an interrupt."""
        stats = models.trusted(
            models.CleanupStats,
            {
                "resources_freed": self._freed,
                "bytes_freed": self._nbytes,
                "errors_encountered": len(self._failures),
                "duration_seconds": time.perf_counter() - self._started,
                "by_type": {self._kind: self._freed} if self._freed else {},
                "errors": tuple(self._failures),
            },
        )
        if self._interrupt is not None:
            raise InterruptedCleanup(self._interrupt, stats) from self._interrupt
        return stats

    def _record_outcome(self) -> None:
        """Account for the resource that was released alone, or note that it stays owned."""
        taken, outcome = self._taken_out, self._outcome
        if taken and outcome is not None:
            resource_id, resource = taken[0]
            holdings = self.holdings
            size = holdings.take_sizes((resource_id,)) if holdings.sizes else 0
            if outcome.stays_owned:
                self.kept.append((resource_id, resource, size))
                # A release by hand, meanwhile, may have taken it out of the index.
                for identity in self._identities:
                    self._index.ids[key_of(identity)] = resource_id
                self._index.restore_descriptors(resource, resource_id)
            else:
                for identity in self._identities:
                    self._index.remove_identity(identity, resource_id)
                self._index.remove_descriptors(taken)
                if self._sites:
                    self._sites.pop(resource_id, None)
                if self._rows:
                    self._end_row(resource_id, outcome)
                if outcome is Outcome.RELEASED:
                    self._freed += 1
                    self._nbytes += size
        taken.clear()
        self._identities.clear()
        self._begun, self._outcome = False, None

    def _reconcile(self) -> None:
        """Put back what was taken out and not released; account for the rest."""
        taken, left, identities = self._taken_out, self._left, self._identities
        kept = len(taken) if left is None else len(left)
        released, names = taken[: len(taken) - kept], identities[kept:]
        # Cleared last: after an interrupt, each of these steps can be taken again.
        self.holdings.update(reversed(taken[len(released) :]))
        # In one go, without a loop: for many small resources this is most of the work.
        ids = [each[0] for each in released]
        if int in set(map(type, names)):
            for identity, resource_id in zip(names, reversed(ids), strict=True):
                self._index.remove_identity(identity, resource_id)
        else:
            deque(map(self._index.ids.pop, map(id, names), repeat(None)), maxlen=0)
        self._index.remove_descriptors(released)
        for resource_id in ids if self._sites else ():
            self._sites.pop(resource_id, None)
        for resource_id in ids if self._rows else ():
            self._end_row(resource_id, Outcome.RELEASED)
        nbytes = self.holdings.take_sizes(ids)
        taken.clear()
        identities.clear()
        self._left, self._begun = None, False
        self._freed += len(released)
        self._nbytes += nbytes

    def _end_row(self, resource_id: ResourceId, outcome: Outcome) -> None:
        """Have the journal forget what is gone; what is not, whoever settles tries once more."""
        row = self._rows.pop(resource_id, None)
        if row is not None and not outcome.is_error:
            row.delete()

    def _note_answer(self, resource: T, answer: object) -> Outcome:
        """Return the outcome that a release has returned, noted if it is an error."""
        if answer is None or answer is Outcome.RELEASED:
            return Outcome.RELEASED
        try:
            outcome = checked_outcome(answer)
        except TypeError as error:
            return self._note_error(resource, error)
        if outcome.is_error:
            self._note(resource, outcome, "")
        return outcome

    def _note_error(self, resource: T, error: BaseException) -> Outcome:
        """Return the outcome that an exception of a release means, noted if it is an error."""
        if isinstance(error, ReleaseError):
            outcome, message = error.outcome, safe_repr(error, str, otherwise="")
        else:
            outcome, message = Outcome.FAILED, describe_error(error)
            self._note_interrupt(error)
        if outcome.is_error:
            self._note(resource, outcome, message)
        return outcome

    def _note_interrupt(self, error: BaseException) -> None:
        """Keep an exception that fell in from outside, which is raised when all is done."""
        if fell_in(error):
            self._interrupt = self._interrupt or error

    def _note(self, resource: T, outcome: Outcome, message: str) -> None:
        failure = models.CleanupFailure(
            kind=self._kind,
            resource=self._describe(resource),
            outcome=outcome,
            message=message or _MESSAGES[outcome],
        )
        self._failures.append(failure)
