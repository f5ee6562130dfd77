"""What is noted while an estate is emptied, and the account of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from probate.errors import ReleaseError
from probate.interruption import InterruptedCleanup
from probate.lazily import lazily
from probate.outcome import Outcome, checked_outcome
from probate.wording import in_words, spoken

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import models
    from probate.estate import Estate, ResourceId
else:
    models = lazily("probate.models")

T = TypeVar("T")

#: Said of an outcome that came without a message of its own.
_PLAIN_WORDS: Final = {
    Outcome.BUSY: "still in use",
    Outcome.TIMEOUT: "did not come free in time",
    Outcome.FAILED: "its release failed",
    Outcome.REFUSED: "not ours to release, or still in use by others",
}


@final
class Emptying:
    """The emptying of one estate: what went otherwise than smoothly. Used once."""

    __slots__ = ("_describe", "_failures", "_interrupt", "_kind", "_started", "kept")

    def __init__(self, kind: str, describe: Callable[[Any], str]) -> None:
        self._kind = kind
        self._describe = describe
        self._started = time.perf_counter()
        self._failures: list[models.CleanupFailure] = []
        self._interrupt: BaseException | None = None
        #: What stays owned, with its bytes, newest first.
        self.kept: list[tuple[ResourceId, Any, int]] = []

    def at_once(
        self,
        estate: Estate[T],
        release_many: Callable[[list[T]], object],
        identity_of: Callable[[T], object] | None,
    ) -> tuple[list[ResourceId], list[object]]:
        """Have all of an estate released at once; the ids of those that were, and identities.

        The others are back in the estate then.
        """
        taken: list[tuple[ResourceId, T]] = []
        left: list[T] | None = None
        identities: list[object] = []
        try:
            try:  # noqa: SIM105  `suppress` takes longer than the rest
                # One by one, each atomically; all are in the list when there are no more.
                taken.extend(iter(estate.popitem, None))
            except KeyError:
                pass
            resources = [each[1] for each in reversed(taken)]
            if identity_of is not None:
                # Held, and asked for now: a release may well change what it is given.
                identities += map(identity_of, resources)
            left = resources
            release_many(left)
        except BaseException as error:
            # Whatever it is, the release of what is left meets it again, and reports it.
            self.note_interrupt(error)
        kept = len(taken) if left is None else len(left)
        if kept:
            estate.update(reversed(taken[-kept:]))
            del taken[-kept:]
            del identities[:kept]
        return [each[0] for each in taken], identities

    def note_answer(self, resource: object, answer: object) -> Outcome:
        """Note what a release has returned, and return the outcome."""
        try:
            outcome = checked_outcome(answer)
        except TypeError as error:
            return self.note_error(resource, error)
        if outcome.is_error:
            self._note(resource, outcome, "")
        return outcome

    def note_error(self, resource: object, error: BaseException) -> Outcome:
        """Note what a release has raised, and return the outcome that it stands for."""
        if isinstance(error, ReleaseError):
            outcome, message = error.outcome, spoken(error, str, otherwise="")
        else:
            outcome, message = Outcome.FAILED, in_words(error)
            self.note_interrupt(error)
        if outcome.is_error:
            self._note(resource, outcome, message)
        return outcome

    def note_interrupt(self, error: BaseException) -> None:
        """Note a KeyboardInterrupt or SystemExit, which is raised when all is done."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._interrupt = error

    def account(self, freed: int, nbytes: int) -> models.CleanupStats:
        """The account of so many resources, and bytes, freed. Raises InterruptedCleanup."""
        stats = models.trusted(
            models.CleanupStats,
            {
                "resources_freed": freed,
                "bytes_freed": nbytes,
                "errors_encountered": len(self._failures),
                "duration_seconds": time.perf_counter() - self._started,
                "by_type": {self._kind: freed} if freed else {},
                "errors": tuple(self._failures),
            },
        )
        if self._interrupt is not None:
            raise InterruptedCleanup(self._interrupt, stats) from self._interrupt
        return stats

    def _note(self, resource: object, outcome: Outcome, message: str) -> None:
        failure = models.CleanupFailure(
            kind=self._kind,
            resource=self._describe(resource),
            outcome=outcome,
            message=message or _PLAIN_WORDS[outcome],
        )
        self._failures.append(failure)
