"""One termination: quiesce, cleanup, retry, verify, account.

The order is the guarantee. Every kind is quiesced before any kind is cleaned, so that whoever
uses a resource has been asked to stop before anything it uses is freed; what is still in use
then is BUSY and is tried again after the other kinds, whose release may have freed its users.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, ParamSpec, TypeVar, final

from probate.errors import InterruptedCleanup, describe_error
from probate.models import CleanupFailure, CleanupResult, CleanupStats, Leak, account_of
from probate.outcome import Outcome
from probate.system.callthread import CallThread
from probate.system.future import Future
from probate.system.interrupts import Elsewhere, fell_in
from probate.system.loops import giving_up_after, running_loop
from probate.termination.hookcall import calling_hook
from probate.termination.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from probate.hookspecs import AnyFuture
    from probate.plugins.registered import RegisteredKind
    from probate.plugins.registry import KindsInUse, PluginRegistry

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that a hook still gets when another has used up the deadline by hanging.
_LAST_ALLOWANCE: Final = 1.0

#: Seconds that a retry waits for users who were asked to stop and have not yet.
_KNOWN_USERS_PAUSE: Final = 0.25

#: Seconds that a retry waits where nothing tells who still uses the resources.
_UNKNOWN_USERS_PAUSE: Final = 0.01


class _HookHungError(Exception):
    """Says that a hook did not return in time."""


@final
class _Answer(NamedTuple, Generic[T]):
    """Carries what a hook returned or raised, so that no exception has to pass a generator."""

    value: T | None
    error: BaseException | None


@final
class _KindAccount:
    """Notes what has become of one kind so far."""

    __slots__ = ("bypasses_observers", "failures", "has_hung", "nbytes", "resources", "retriable")

    def __init__(self) -> None:
        self.resources = 0
        self.nbytes = 0
        #: Errors that no later success undoes.
        self.failures: list[CleanupFailure] = []
        #: Errors of the latest cleanup that are gone when a retry succeeds.
        self.retriable: list[CleanupFailure] = []
        self.has_hung = False
        #: Whether to call the plugin itself, since an observer may be at fault.
        self.bypasses_observers = False


@final
class Termination:
    """Releases all that one pid owns, over all registered kinds. Used once.

    `deadline` is in seconds from the making of this object; None waits for ever on a hook
    that hangs. With `with_leaks`, what the pid still owns is listed as leaked.
    """

    def __init__(
        self,
        pid: int,
        registry: PluginRegistry,
        deadline: float | None,
        with_leaks: bool = False,
        in_use: KindsInUse | None = None,
    ) -> None:
        self.pid = pid
        #: The first exception that fell in from outside, to be raised when all is done.
        self.interrupt: BaseException | None = None
        self._registry = registry
        self._deadline = deadline
        self._with_leaks = with_leaks
        self._started = time.perf_counter()
        self._accounts: defaultdict[str, _KindAccount] = defaultdict(_KindAccount)
        #: The latest answer to which kinds the pid owns something of.
        self._asked = in_use
        self._kinds_in_use: list[RegisteredKind] = []
        self._leaks: list[Leak] = []
        self._notes: list[str] = []
        self._thread: CallThread | None = None
        #: A cleanup whose answer is still to come, or to be accounted for.
        self._unanswered: tuple[RegisteredKind, AnyFuture] | None = None
        #: Done when the users of the resources have stopped.
        self.futures: list[AnyFuture] = []
        trace = registry.plugin_manager.trace_of_calls
        self._trace = None if trace is None else trace.of_termination(pid)

    def quiesce(self, grace: float) -> Generator[Wait, None, None]:
        """Ask the users of all that the pid owns to stop, without waiting for them.

        `grace` is how many seconds they will get.
        """
        try:
            self._kinds_in_use = self._find_kinds_in_use(known=self._asked)
            for kind in self._kinds_in_use if self._with_leaks else ():
                self._note_leaks(kind)
            for kind in self._kinds_in_use:
                if kind.implements_quiesce:
                    yield from self._quiesce(kind, grace)
        except BaseException as error:
            if not fell_in(error):
                raise
            # It fell between two steps. Nobody else is asked to stop. The release goes on, with
            # the kinds in use, which may not have been found yet.
            self._note_interrupt(error)
            self._kinds_in_use = self._find_kinds_in_use()

    def grace(self, seconds: float) -> Wait:
        """Make the one wait for users to stop: so many seconds, or until the deadline."""
        return Wait(self.futures, min(seconds, self._time_left()), is_grace=True)

    def release_all(self) -> Generator[Wait, None, CleanupResult]:
        """Release everything, in cleanup order, as often as it helps; return the account."""
        while True:
            try:
                yield from self._answer_late()
                yield from self._release_all()
            except BaseException as error:
                if not fell_in(error):
                    raise
                # It fell between two steps: everything is still in its place, so once more.
                self._note_interrupt(error)
                self._kinds_in_use = self._find_kinds_in_use()
            else:
                if self._thread is not None:
                    self._thread.close()
                account = self._account()
                if self._trace is not None:
                    self._trace.end(account)
                return account

    # -- steps ---------------------------------------------------------------

    def _find_kinds_in_use(self, known: KindsInUse | None = None) -> list[RegisteredKind]:
        kinds_in_use = known or self._within(self._registry.kinds_in_use, self.pid, self._asked)
        self._asked = kinds_in_use
        self.interrupt = self.interrupt or kinds_in_use.interrupt
        for kind, error in kinds_in_use.failures:
            self._note_error(kind, "has_resources()", error)
        return kinds_in_use.kinds

    def _quiesce(self, kind: RegisteredKind, grace: float) -> Generator[Wait, None, None]:
        def ask() -> list[AnyFuture]:
            with calling_hook(self._notes, grace):
                # Iterated over here: an iterable may do its work, or hang, only then.
                answers = self._registry.quiesce(kind, self.pid)
                return [future for answer in answers for future in _checked_futures(answer)]

        futures, error = yield from self._call(kind, "quiesce", ask)
        self.futures.extend(futures or ())
        if error is not None:
            self._note_error(kind, "quiesce()", error)

    def _release_all(self) -> Generator[Wait, None, None]:
        pending = self._kinds_in_use
        is_first_pass = True
        while pending:
            freed = 0
            for kind in pending:
                freed += yield from self._clean(kind)
            kinds_in_use = self._find_kinds_in_use()
            for kind in pending:
                if kind not in kinds_in_use:
                    # What was busy has come free by itself since, which is no error.
                    account = self._accounts[kind.kind]
                    account.retriable = [e for e in account.retriable if not e.outcome.stays_owned]
            pending = [kind for kind in kinds_in_use if not self._accounts[kind.kind].has_hung]
            if not pending or (freed == 0 and not is_first_pass) or self._time_left() <= 0:
                break
            is_first_pass = False
            yield self._pause()
        for kind in pending:
            account = self._accounts[kind.kind]
            if not account.failures and not account.retriable:
                message = "resources remain after cleanup"
                account.failures.append(_failure(kind, "cleanup()", Outcome.FAILED, message))

    def _pause(self) -> Wait:
        """Make the wait before the next pass, for users who may go on after the last one."""
        unfinished = [future for future in self.futures if not future.done()]
        if unfinished:
            return Wait(unfinished, min(_KNOWN_USERS_PAUSE, self._time_left()), is_grace=True)
        # It is used by somebody unknown to us, such as a thread that was blocked in a socket.
        return Wait([Future()], min(_UNKNOWN_USERS_PAUSE, self._time_left()))

    def _note_leaks(self, kind: RegisteredKind) -> None:
        usage, error = _answer(partial(self._within, kind.usage_of, self.pid))
        if usage is not None:
            self._leaks.extend(Leak(kind=kind.kind, resource=info) for info in usage.resources)
        if error is not None:
            self._note_error(kind, "usage()", error)

    def _clean(self, kind: RegisteredKind) -> Generator[Wait, None, int]:
        """Clean one kind once; return how many resources came free."""
        account = self._accounts[kind.kind]
        account.retriable = []

        def clean() -> CleanupStats:
            with giving_up_after(self._allowance()), calling_hook(self._notes):
                if account.bypasses_observers:
                    return _checked_stats([self._registry.call_alone(kind, "cleanup", self.pid)])
                return _checked_stats(self._registry.clean(kind, self.pid))

        answer = yield from self._call(kind, "cleanup", clean)
        freed = self._record(kind, answer)
        self._unanswered = None
        return freed

    def _answer_late(self) -> Generator[Wait, None, None]:
        """Account for a cleanup that was begun before an exception fell in."""
        if self._unanswered is not None:
            kind, future = self._unanswered
            yield Wait([future], self._allowance())
            if future.done():
                self._record(kind, _answer(future.result))
            self._unanswered = None

    def _record(self, kind: RegisteredKind, answer: _Answer[CleanupStats]) -> int:
        """Add what a cleanup returned or raised to the account; return how many came free."""
        account = self._accounts[kind.kind]
        stats, error = answer
        if isinstance(error, InterruptedCleanup):
            self.interrupt = self.interrupt or error.interrupt
            stats, error = error.stats, None
        if error is not None:
            account.has_hung = isinstance(error, _HookHungError)
            # It may have been an observer: next time the plugin itself is called.
            account.bypasses_observers = True
            self._note_error(kind, "cleanup()", error)
        if stats is None:
            return 0
        account.resources += stats.resources_freed
        account.nbytes += stats.bytes_freed
        for failure in stats.errors:
            stays = failure.outcome.stays_owned
            (account.retriable if stays else account.failures).append(failure)
        account.retriable.extend(
            _failure(kind, "a resource", Outcome.FAILED, "the plugin counted it and said no more")
            for _ in range(stats.errors_encountered - len(stats.errors))
        )
        return stats.resources_freed

    def _call(
        self, kind: RegisteredKind, hook: str, function: Callable[[], T]
    ) -> Generator[Wait, None, _Answer[T]]:
        """Call a hook, on the hook thread if it may block and there is a deadline or a loop."""
        if self._trace is not None:
            function = partial(self._trace.within, function)
        # Without a deadline nothing is left behind, but a loop that runs here must not be blocked.
        is_watched = self._deadline is not None or running_loop() is not None
        if not is_watched or kind.runs_inline(hook, self.pid):
            answer = _answer(function)
            if isinstance(answer.error, RecursionError):
                # Perhaps of this thread's stack alone: then it comes to its end on another.
                answer = _answer(Elsewhere(function).result)
            return answer
        if self._thread is None:
            is_for_loop = running_loop() is not None
            self._thread = CallThread(f"probate-cleanup-{self.pid}", is_for_loop=is_for_loop)
        try:
            future = self._thread.begin(function)
        except RuntimeError:
            # No more threads can be started. A hook that may hang is better than none at all.
            return _answer(function)
        if hook == "cleanup":
            self._unanswered = kind, future
        self.interrupt = self.interrupt or self._thread.interrupt
        yield Wait([future], self._allowance())
        if not future.done():
            self._thread.abandon()
            return _Answer(None, _HookHungError())
        return _answer(future.result)

    def _within(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what is part of this termination, for a trace that shows of what."""
        if self._trace is None:
            return function(*args, **kwargs)
        return self._trace.within(partial(function, *args, **kwargs))

    # -- account -------------------------------------------------------------

    def _account(self) -> CleanupResult:
        accounts = self._accounts
        errors: list[CleanupFailure] = []
        for kind in self._registry.order() if accounts else ():
            if (account := accounts.get(kind)) is not None:
                errors += account.failures
                errors += account.retriable
        return account_of(
            self.pid,
            by_type={kind: each.resources for kind, each in accounts.items() if each.resources},
            nbytes=sum([each.nbytes for each in accounts.values()]),
            seconds=time.perf_counter() - self._started,
            errors=tuple(errors),
            leaks=tuple(self._leaks),
            notes=tuple(self._notes),
        )

    def _note_error(self, kind: RegisteredKind, hook: str, error: BaseException) -> None:
        """Note what a hook raised; once, however often it does."""
        self._note_interrupt(error)
        if isinstance(error, _HookHungError):
            failure = _failure(kind, hook, Outcome.TIMEOUT, "did not return in time; left behind")
        else:
            failure = _failure(kind, hook, Outcome.FAILED, describe_error(error))
        failures = self._accounts[kind.kind].failures
        if failure not in failures:
            failures.append(failure)

    def _note_interrupt(self, error: BaseException) -> None:
        if fell_in(error):
            self.interrupt = self.interrupt or error

    def _allowance(self) -> float:
        """Return the seconds that a hook gets: a few even when another has used up the rest."""
        if self._deadline is None:
            return float("inf")
        return max(self._time_left(), min(_LAST_ALLOWANCE, self._deadline))

    def _time_left(self) -> float:
        if self._deadline is None:
            return float("inf")
        return max(0.0, self._started + self._deadline - time.perf_counter())


def _answer(function: Callable[[], T]) -> _Answer[T]:
    try:
        return _Answer(function(), None)
    except BaseException as error:
        return _Answer(None, error)


def _checked_futures(answer: object) -> list[AnyFuture]:
    futures: list[AnyFuture] = list(answer)  # type: ignore[call-overload]  # a TypeError is reported
    for future in futures:
        if not isinstance(future, concurrent.futures.Future) and not asyncio.isfuture(future):
            raise TypeError(f"expected futures, got {future!r}")
    return futures


def _checked_stats(answers: list[Any]) -> CleanupStats:
    for answer in answers:
        if not isinstance(answer, CleanupStats):
            raise TypeError(f"expected CleanupStats, got {answer!r}")
    stats: CleanupStats = answers[0] if len(answers) == 1 else CleanupStats.merged(answers)
    return stats


def _failure(kind: RegisteredKind, what: str, outcome: Outcome, message: str) -> CleanupFailure:
    return CleanupFailure(kind=kind.kind, resource=what, outcome=outcome, message=message)
