"""One termination: quiesce, cleanup, retry, verify, account.

The order is the guarantee. Every kind is quiesced before any kind is cleaned, so that whoever
uses a resource has been asked to stop before anything it uses is freed; what is still in use
then is BUSY and is tried again after the other kinds, whose release may have freed its users.
"""

from __future__ import annotations

import concurrent.futures
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from probate.interruption import InterruptedCleanup
from probate.models import CleanupFailure, CleanupResult, CleanupStats, Leak
from probate.outcome import Outcome
from probate.waiting import Wait
from probate.watch import WatchedThread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from probate.hookspecs import AnyFuture
    from probate.registry import PluginRegistry, RegisteredKind

#: What kinds still get, in seconds, after another has used up the deadline by hanging.
_LAST_ALLOWANCE: Final = 1.0

#: Seconds that a retry waits for users who were asked to stop and have not yet.
_USERS_PAUSE: Final = 0.25

#: Seconds that a retry waits where nothing tells who still uses the resources.
_STRANGERS_PAUSE: Final = 0.01


class _HookHungError(Exception):
    """A hook did not return in time."""


@final
class _Entry:
    """What has become of one kind so far."""

    __slots__ = ("attempt", "bypass", "has_hung", "lasting", "nbytes", "query_failure", "resources")

    def __init__(self) -> None:
        self.resources = 0
        self.nbytes = 0
        #: Failures of other hooks than cleanup, which no later success undoes.
        self.lasting: list[CleanupFailure] = []
        #: Failures of the latest cleanup: an earlier one's BUSY is past when a retry succeeds.
        self.attempt: list[CleanupFailure] = []
        #: Why `has_resources` cannot be asked.
        self.query_failure: CleanupFailure | None = None
        self.has_hung = False
        #: Whether to call the plugin itself next time, past observers that may be the fault.
        self.bypass = False


@final
class Termination:
    """The settling of one pid over all registered kinds. Used once.

    `deadline` is in seconds from the making of this object; None waits for ever on a hook
    that hangs. With `with_leaks`, what the pid still owns is listed as leaked.
    """

    def __init__(
        self,
        pid: int,
        registry: PluginRegistry,
        *,
        deadline: float | None,
        with_leaks: bool = False,
    ) -> None:
        self.pid = pid
        #: A KeyboardInterrupt or SystemExit out of a hook, to be raised when all is done.
        self.interrupt: BaseException | None = None
        self._registry = registry
        self._deadline = deadline
        self._with_leaks = with_leaks
        self._started = time.perf_counter()
        self._entries: dict[str, _Entry] = {}
        self._holders: list[RegisteredKind] = []
        self._leaks: list[Leak] = []
        self._thread = WatchedThread(f"probate-cleanup-{pid}")
        #: What the users of the resources were asked to finish.
        self.futures: list[AnyFuture] = []

    def quiesce(self) -> Generator[Wait, None, None]:
        """Ask the users of everything that the pid owns to stop; blocks nowhere."""
        try:
            self._holders = self._find_holders()
            for kind in self._holders:
                if self._with_leaks:
                    self._note_leaks(kind)
            for kind in self._holders:
                if kind.implements_quiesce:
                    yield from self._quiesce(kind)
        except (KeyboardInterrupt, SystemExit) as error:
            # It fell between two steps. No more is asked for politely; settling goes on.
            self._note_interrupt(error)

    def grace(self, seconds: float) -> Wait:
        """The one wait for users to stop."""
        return Wait(self.futures, min(seconds, self._time_left()), is_grace=True)

    def settle(self) -> Generator[Wait, None, CleanupResult]:
        """Release everything, in cleanup order, as often as it helps; return the account."""
        while True:
            try:
                yield from self._settle()
            except (KeyboardInterrupt, SystemExit) as error:
                # It fell between two steps: everything is still in its place, so once more.
                self._note_interrupt(error)
                self._holders = self._find_holders()
            else:
                self._thread.close()
                return self._account()

    # -- steps ---------------------------------------------------------------

    def _find_holders(self) -> list[RegisteredKind]:
        holders = self._registry.holders(self.pid)
        self.interrupt = self.interrupt or holders.interrupt
        for kind, error in holders.failures.items():
            self._note_interrupt(error)
            entry = self._entries.setdefault(kind, _Entry())
            entry.query_failure = CleanupFailure(
                kind=kind,
                resource="has_resources()",
                outcome=Outcome.FAILED,
                message=_words(error),
            )
        return holders.kinds

    def _quiesce(self, kind: RegisteredKind) -> Generator[Wait, None, None]:
        try:
            answers = yield from self._call(kind.quiesce, kind.quiesce_is_inline)
            for answer in answers:
                self.futures.extend(_checked_futures(answer))
        except _HookHungError:
            self._note(kind, "quiesce()", Outcome.TIMEOUT, "did not return in time")
        except GeneratorExit:
            raise
        except BaseException as error:
            self._note_interrupt(error)
            self._note(kind, "quiesce()", Outcome.FAILED, _words(error))

    def _settle(self) -> Generator[Wait, None, None]:
        pending = self._holders
        is_first_pass = True
        while pending:
            freed = 0
            for kind in pending:
                freed += yield from self._clean(kind)
            pending = [k for k in self._find_holders() if not self._entry(k).has_hung]
            if not pending or (freed == 0 and not is_first_pass) or self._time_left() <= 0:
                break
            is_first_pass = False
            yield self._pause()
        for kind in pending:
            entry = self._entry(kind)
            if not entry.attempt and entry.query_failure is None:
                self._fail(kind, "cleanup()", Outcome.FAILED, "resources remain after cleanup")

    def _pause(self) -> Wait:
        """Let those who were set free by the last pass take note of it, before the next."""
        unfinished = [future for future in self.futures if not future.done()]
        if unfinished:
            return Wait(unfinished, min(_USERS_PAUSE, self._time_left()), is_grace=True)
        # Whoever holds on is unknown to us, such as a thread that was blocked in a socket.
        return Wait([concurrent.futures.Future()], min(_STRANGERS_PAUSE, self._time_left()))

    def _note_leaks(self, kind: RegisteredKind) -> None:
        try:
            usage = kind.usage_of(self.pid)
        except Exception as error:
            self._note(kind, "usage()", Outcome.FAILED, _words(error))
        else:
            self._leaks.extend(Leak(kind=kind.kind, resource=info) for info in usage.resources)

    def _clean(self, kind: RegisteredKind) -> Generator[Wait, None, int]:
        """Clean one kind once; return how many resources came free."""
        entry = self._entry(kind)
        entry.attempt = []
        call = kind.cleanup_directly if entry.bypass else kind.cleanup
        try:
            answers = yield from self._call(call, kind.cleanup_is_inline)
            stats = _checked_stats(answers)
        except InterruptedCleanup as interrupted:
            self.interrupt = self.interrupt or interrupted.interrupt
            stats = interrupted.stats
        except _HookHungError:
            entry.has_hung = True
            self._fail(kind, "cleanup()", Outcome.TIMEOUT, "did not return in time; left behind")
            return 0
        except GeneratorExit:
            raise
        except BaseException as error:
            entry.bypass = True
            self._note_interrupt(error)
            self._fail(kind, "cleanup()", Outcome.FAILED, _words(error))
            return 0
        entry.resources += stats.resources_freed
        entry.nbytes += stats.bytes_freed
        entry.attempt.extend(stats.errors)
        for _ in range(stats.errors_encountered - len(stats.errors)):
            self._fail(kind, "a resource", Outcome.FAILED, "the plugin counted it and said no more")
        return stats.resources_freed

    def _call(self, hook: Callable[..., Any], is_inline: bool) -> Generator[Wait, None, list[Any]]:
        """Call a hook, on a thread of its own if it might hang and there is a deadline."""
        if is_inline or self._deadline is None:
            answers: list[Any] = hook(pid=self.pid)
            return answers
        future = self._thread.submit(partial(hook, pid=self.pid))
        yield Wait([future], max(self._time_left(), min(_LAST_ALLOWANCE, self._deadline)))
        if not future.done():
            self._thread.abandon()
            raise _HookHungError
        answers = future.result()
        return answers

    # -- account -------------------------------------------------------------

    def _account(self) -> CleanupResult:
        errors: list[CleanupFailure] = []
        for kind in self._registry.order():
            entry = self._entries.get(kind)
            if entry is not None:
                if entry.query_failure is not None:
                    errors.append(entry.query_failure)
                errors.extend(entry.lasting)
                errors.extend(entry.attempt)
        entries = self._entries.items()
        stats = CleanupStats(
            resources_freed=sum(entry.resources for _, entry in entries),
            bytes_freed=sum(entry.nbytes for _, entry in entries),
            errors_encountered=len(errors),
            duration_seconds=time.perf_counter() - self._started,
            by_type={kind: entry.resources for kind, entry in entries if entry.resources},
        )
        return CleanupResult(
            pid=self.pid, stats=stats, errors=tuple(errors), leaks=tuple(self._leaks)
        )

    def _entry(self, kind: RegisteredKind) -> _Entry:
        return self._entries.setdefault(kind.kind, _Entry())

    def _fail(self, kind: RegisteredKind, what: str, outcome: Outcome, message: str) -> None:
        """Note a failure of the cleanup under way."""
        self._entry(kind).attempt.append(_failure(kind, what, outcome, message))

    def _note(self, kind: RegisteredKind, what: str, outcome: Outcome, message: str) -> None:
        """Note a failure that stays, whatever cleanup achieves."""
        self._entry(kind).lasting.append(_failure(kind, what, outcome, message))

    def _note_interrupt(self, error: BaseException) -> None:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.interrupt = self.interrupt or error

    def _time_left(self) -> float:
        if self._deadline is None:
            return float("inf")
        return max(0.0, self._started + self._deadline - time.perf_counter())


def _checked_futures(answer: object) -> list[AnyFuture]:
    futures: list[AnyFuture] = list(answer)  # type: ignore[call-overload]  # a TypeError is reported
    for future in futures:
        if not callable(getattr(future, "add_done_callback", None)):
            raise TypeError(f"expected futures, got {future!r}")
    return futures


def _checked_stats(answers: list[Any]) -> CleanupStats:
    for answer in answers:
        if not isinstance(answer, CleanupStats):
            raise TypeError(f"expected CleanupStats, got {answer!r}")
    if not answers:
        raise TypeError("expected CleanupStats, got None")
    stats: CleanupStats = answers[0] if len(answers) == 1 else CleanupStats.merged(answers)
    return stats


def _failure(kind: RegisteredKind, what: str, outcome: Outcome, message: str) -> CleanupFailure:
    return CleanupFailure(kind=kind.kind, resource=what, outcome=outcome, message=message)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
