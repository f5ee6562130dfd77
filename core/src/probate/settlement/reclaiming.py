"""Has what a dead host has left given back: one thing after another, each within its time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

from probate.errors import ReleaseError, describe_error
from probate.journal.pinnedfolders import PinnedFolders
from probate.journal.users import look_again
from probate.outcome import Outcome, checked_outcome
from probate.system.callthread import CallThread

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Sequence

    from probate.models import ResourceRecord
    from probate.plugins.registered import RegisteredKind
    from probate.plugins.registry import PluginRegistry

    #: What came of a thing, and why.
    Answer = tuple[Outcome, str]

#: Seconds that one thing's release gets.
_ALLOWANCE: Final = 30.0

#: What is busy is tried again after so many seconds each.
_RETRIES: Final = (0.1, 0.4, 1.5)


def reclaim(
    records: Sequence[ResourceRecord], registry: PluginRegistry, *, dry_run: bool
) -> list[Answer]:
    """Have each thing given back, in that order, by its kind; return what came of each.

    On a thread that is left behind with a thing that hangs: the next one goes on.
    """
    thread = CallThread("probate-reclaim")
    look_again()
    answers: list[Answer] = []
    while len(answers) < len(records):
        batch = _Batch(records[len(answers) :], registry, dry_run=dry_run)
        future = thread.submit(batch.run)
        try:
            has_ended = batch.await_end(future)
        finally:
            batch.is_left = True
        answers += batch.answers
        if not has_ended:
            thread.abandon()
            text = f"it did not come free within {_ALLOWANCE:.0f} seconds"
            answers.append((Outcome.TIMEOUT, text))
    thread.close()
    return answers


@final
class _Batch:
    """Things that one thread gives back, one after another, until one of them hangs."""

    def __init__(
        self, records: Sequence[ResourceRecord], registry: PluginRegistry, *, dry_run: bool
    ) -> None:
        self._records = records
        self._registry = registry
        self._dry_run = dry_run
        #: When the thing in hand was begun with.
        self._begun = time.monotonic()
        #: Whether nobody waits for more.
        self.is_left = False
        self.answers: list[Answer] = []

    def run(self) -> None:
        """Give them back."""
        with PinnedFolders.of_this_thread():
            for record in self._records:
                if self.is_left:
                    return
                self.answers.append(self._reclaim(record))

    def await_end(self, future: concurrent.futures.Future[None]) -> bool:
        """Wait until all are given back; False as soon as one of them has had its time."""
        while (left := self._begun + _ALLOWANCE - time.monotonic()) > 0:
            try:
                future.result(left)
            except TimeoutError:
                continue
            return True
        return False

    def _reclaim(self, record: ResourceRecord) -> Answer:
        if (kind := self._registry.get(record.kind)) is None:
            return Outcome.REFUSED, f"kind {record.kind!r} is not installed here"
        answer: Answer = Outcome.BUSY, ""
        for pause in (*_RETRIES, 0):
            self._begun = time.monotonic()
            answer = self._try(kind, record)
            if answer[0] is not Outcome.BUSY or self._dry_run:
                break
            time.sleep(pause)
        return answer

    def _try(self, kind: RegisteredKind, record: ResourceRecord) -> Answer:
        try:
            answers = kind.reclaim(record=record, dry_run=self._dry_run)
            for each in answers:
                if each is not None:
                    return checked_outcome(each), ""
        except ReleaseError as error:
            return error.outcome, str(error)
        except BaseException as error:
            # Also a SystemExit, or a CancelledError, which on this thread is the kind's own.
            return Outcome.FAILED, describe_error(error)
        return Outcome.REFUSED, f"kind {kind.kind!r} cannot give back what is not its own"
