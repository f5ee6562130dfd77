"""Trial: the kinds, owners and things of one check, and their end whatever comes of it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import warnings
from typing import TYPE_CHECKING, Any, Final, Self, final

from probate import (
    ProbateError,
    ProcessManager,
    ResourceLimits,
    ResourceOrchestrator,
    UnwiredKindWarning,
)
from probate.errors import describe_error, safe_repr
from probate.orchestrator import registry_of
from probate.system.callthread import CallThread
from probate.testing.conformance.fault import ConformanceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from probate.models import CleanupResult, KindLimits
    from probate.testing.conformance.description import KindDescription

#: Seconds that the users of things get to stop: nobody waits for longer than they take.
GRACE: Final = 2.0

#: Seconds that a termination gets, in which nothing hangs unless it is asked to.
DEADLINE: Final = 10.0


@final
class Owned:
    """One thing that was made for an owner, and what the kernel knows it by."""

    def __init__(self, description: KindDescription[Any, Any], thing: Any) -> None:
        self.thing = thing
        self._description = description
        self._known_as = description.identify(thing)

    def __repr__(self) -> str:
        return safe_repr(self._known_as)

    @property
    def is_alive(self) -> bool:
        """Whether the kernel still has it."""
        return self._description.is_alive(self._known_as)

    def why_unusable(self) -> str:
        """Use it; return what that raised, or nothing."""
        if self._description.use is None:
            return ""
        try:
            self._description.use(self.thing)
        except Exception as error:
            return describe_error(error)
        return ""


@final
class Trial:
    """Makes what one check needs, and ends it: a context manager.

    `fail` raises ConformanceError. What a failing check has left is ended natively, as far as
    the description says how.
    """

    def __init__(self, description: KindDescription[Any, Any]) -> None:
        self.description = description
        #: The kind's name; until one is served, what makes it must do.
        self.name = description.name or str(getattr(description.kind, "__name__", "?"))
        self._serving: list[Served] = []
        self.made: list[Owned] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.description.around())
        self._stack.callback(self._end_all)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def fail(self, *faults: str) -> ConformanceError:
        """Make the error for these faults."""
        return ConformanceError(self.name, list(faults))

    def serve(self, *, deadline: float = DEADLINE, limits: KindLimits | None = None) -> Served:
        """Make a kind anew, in an orchestrator and a manager of its own.

        `limits` are what an owner may have.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UnwiredKindWarning)
                kind = self.description.kind()
                orchestrator = ResourceOrchestrator().register(kind, self.description.name)
        except (ProbateError, UnwiredKindWarning) as error:
            raise self.fail(str(error)) from error
        [self.name] = orchestrator.registered_types()
        builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
        builder.with_grace(GRACE).with_deadline(deadline).without_journal()
        if limits is not None:
            builder.with_limits(ResourceLimits(by_kind={self.name: limits}))
        self._serving.append(served := Served(self, kind, orchestrator, builder.build(), deadline))
        return served

    def note(self, thing: Any) -> Owned:
        """Note a thing, to be ended with the check."""
        self.made.append(owned := Owned(self.description, thing))
        return owned

    def within(self, what: str, function: Callable[[], Any], more: float = 0) -> Any:
        """Call what must not block, on a thread that is left behind if it does.

        It may take `more` seconds than the patience of the description. Raises what it raises.
        """
        seconds = self.description.patience + more
        thread = CallThread("probate-conformance")
        future = thread.submit(function)
        try:
            answer = future.result(seconds)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            thread.abandon()
            raise self.fail(f"{what} blocks: it has not returned after {seconds:g} s") from None
        finally:
            if future.done():
                thread.close()
        return answer

    def check_gone(self, owned: Sequence[Owned], when: str) -> None:
        """Fail unless the kernel has none of these any more."""
        if left := [each for each in owned if each.is_alive]:
            raise self.fail(f"{len(left)} of {len(owned)} still there {when}: {left[0]!r}")

    def check_there(self, owned: Sequence[Owned], when: str) -> None:
        """Fail unless the kernel has all of these, and each can be used."""
        if gone := [each for each in owned if not each.is_alive]:
            raise self.fail(f"{len(gone)} of {len(owned)} gone {when}: {gone[0]!r}")
        for each in owned:
            if why := each.why_unusable():
                raise self.fail(f"{each!r} cannot be used {when}: {why}")

    def _end_all(self) -> None:
        with warnings.catch_warnings():
            # Of what a broken kind leaves, which is reported already.
            warnings.simplefilter("ignore")
            for served in self._serving:
                with contextlib.suppress(Exception):
                    served.close()
            if (end := self.description.end) is not None:
                for each in self.made:
                    with contextlib.suppress(Exception):
                        if each.is_alive:
                            end(each.thing)
            # Whoever still has the trial (a traceback, a cache) keeps none of it open.
            self._serving.clear()
            self.made.clear()


@final
class Served:
    """One kind, made anew, with an orchestrator and a process manager of its own."""

    def __init__(
        self,
        trial: Trial,
        kind: Any,
        orchestrator: ResourceOrchestrator,
        manager: ProcessManager,
        deadline: float,
    ) -> None:
        registered = registry_of(orchestrator).get(trial.name)
        assert registered is not None  # noqa: S101  it was just registered
        self.trial = trial
        self.kind = kind
        self.orchestrator = orchestrator
        self.manager = manager
        self.deadline = deadline
        #: Its own hooks, by name, as they are called where nobody observes.
        self.hooks = registered.methods
        self.ordering = registered.ordering
        self.tables = registered.tables

    def owner(self, name: str = "owner") -> int:
        """Make a process; return its pid."""
        return self.manager.create_process(name).pid

    def make(self, pid: int) -> Owned:
        """Have `pid` own a new thing, which the kernel has, and which can be used."""
        owned = self.trial.note(self.trial.description.make(self.kind, pid))
        self.trial.check_there([owned], "when it was just made")
        return owned

    def holds(self, pid: int) -> bool:
        """Ask whether `pid` owns anything; fail if that is not answered by True or False."""
        answer = self.hooks["has_resources"](pid)
        if not isinstance(answer, bool):
            raise self.trial.fail(f"has_resources() answered {answer!r}, neither True nor False")
        return answer

    def count(self, pid: int) -> int:
        """Count what `pid` owns, as `usage` says."""
        registered = registry_of(self.orchestrator).get(self.trial.name)
        assert registered is not None  # noqa: S101  as above
        return registered.usage_of(pid).count

    def give_back(self, pid: int, owned: Owned) -> None:
        """Give one back by hand."""
        if (give_back := self.trial.description.give_back) is not None:
            give_back(self.kind, pid, owned.thing)
        else:
            self.orchestrator.give_back(pid, owned.thing)

    def end(self, pid: int) -> CleanupResult:
        """Terminate an owner; return the account."""
        result: CleanupResult = self.trial.within(
            "the termination", lambda: self.manager.terminate_process(pid), GRACE + self.deadline
        )
        return result

    def end_without_fault(self, pid: int, owned: Sequence[Owned]) -> CleanupResult:
        """Terminate an owner of just these; fail if any stays, or the account is not right."""
        result = self.end(pid)
        if result.errors:
            raise self.trial.fail(*(f"its account has an error: {each}" for each in result.errors))
        self.trial.check_gone(owned, "although the account has no error")
        if self.holds(pid):
            raise self.trial.fail(
                "has_resources() is True after all was released: is it answered by the table that "
                "cleanup() empties?"
            )
        return result

    def close(self) -> None:
        """End whatever is left, in bounded time."""
        thread = CallThread("probate-conformance")
        future = thread.submit(self.manager.close)
        concurrent.futures.wait([future], 2 * DEADLINE)
        if future.done():
            thread.close()
        else:
            thread.abandon()
