"""The checks of the kit, as cases to be called one by one, or all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from probate.errors import describe_error
from probate.hookspecs import PROJECT
from probate.plugins.kind import ResourceKind
from probate.testing.conformance import (
    acquiring,
    adopting,
    afterdeath,
    bookkeeping,
    isolation,
    quiescing,
    releasing,
    remains,
)
from probate.testing.conformance.fault import ConformanceError
from probate.testing.conformance.static import check_statically
from probate.testing.conformance.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.testing.conformance.description import KindDescription

#: Every check, with the fields of the description that it needs, and the hook that it is about.
_CHECKS: Final[tuple[tuple[Callable[[Trial], None], tuple[str, ...], str], ...]] = (
    (bookkeeping.has_resources_tells_the_truth, (), ""),
    (bookkeeping.accounts_tell_what_was_done, (), ""),
    (bookkeeping.event_loops_end_owners, (), ""),
    (bookkeeping.cleanup_can_be_repeated, (), ""),
    (bookkeeping.limits_hold, (), ""),
    (bookkeeping.others_cost_nothing, (), ""),
    (isolation.owners_are_apart, (), ""),
    (isolation.managers_are_apart, (), ""),
    (isolation.what_is_transferred_lives_on, (), ""),
    (isolation.forked_children_own_nothing, (), ""),
    (releasing.newest_is_released_first, (), ""),
    (releasing.cleanup_raises_nothing, (), ""),
    (releasing.one_failure_stops_nobody, (), ""),
    (releasing.busy_stays_owned, ("keep_busy",), ""),
    (releasing.a_hang_is_reported, ("stall",), ""),
    (quiescing.quiesce_is_gentle, (), "quiesce"),
    (acquiring.the_ended_acquire_nothing, (), ""),
    (acquiring.cleanup_acquires_nothing, (), ""),
    (acquiring.nothing_is_lost_in_a_race, (), ""),
    (adopting.what_is_adopted_is_released, ("make_elsewhere",), ""),
    (adopting.what_is_foreign_is_not_adopted, (), "adopt"),
    (remains.nothing_remains, (), ""),
    (afterdeath.the_dead_leave_nothing, ("names",), ""),
    (afterdeath.what_the_dead_adopted_goes_too, ("names", "make_elsewhere"), ""),
    (afterdeath.what_was_never_confirmed_is_settled, ("names",), ""),
    (afterdeath.successors_are_left_alone, ("names",), ""),
    (afterdeath.what_is_in_use_is_kept, ("names.in_use",), ""),
    (afterdeath.the_journal_forgets_what_is_gone, ("names",), ""),
)


@final
class ConformanceCase:
    """One check of one kind: call it, and it raises ConformanceError if the kind fails.

    `str` of it is the check's name, for test ids.
    """

    def __init__(
        self, description: KindDescription[Any, Any], check: Callable[[Trial], None] | None
    ) -> None:
        self._description = description
        self._check = check

    def __str__(self) -> str:
        return "static" if self._check is None else self._check.__name__

    def __repr__(self) -> str:
        return f"<ConformanceCase {self}>"

    def __call__(self) -> None:
        """Make the check. Raises ConformanceError."""
        __tracebackhide__ = True  # pytest shows who called it
        if self._check is None:
            description = self._description
            check_statically(
                description.kind, description.name, other_kinds=description.other_kinds
            )
            return
        with Trial(self._description) as trial:
            try:
                self._check(trial)
            except ConformanceError as error:
                # Where in the kit it was found tells an author nothing.
                raise error.with_traceback(None) from error.__cause__
            except Exception as error:
                raise trial.fail(f"while {self} was checked, {describe_error(error)}") from error


def conformance_cases(description: KindDescription[Any, Any]) -> list[ConformanceCase]:
    """List the checks that apply to a kind as it is described.

    With pytest:

        @pytest.mark.parametrize("case", conformance_cases(DESCRIPTION), ids=str)
        def test_conformance(case: ConformanceCase) -> None:
            case()

    Anything else that calls them will do as well.
    """
    cases = [ConformanceCase(description, None)]
    for check, fields, hook in _CHECKS:
        if not all(_is_described(description, field) for field in fields):
            continue
        if hook and not _may_implement(description, hook):
            continue
        cases.append(ConformanceCase(description, check))
    return cases


def check_conformance(description: KindDescription[Any, Any]) -> None:
    """Make all checks that apply. Raises one ConformanceError with the faults of all that fail."""
    faults: list[str] = []
    kind = description.name or "?"
    for case in conformance_cases(description):
        try:
            case()
        except ConformanceError as error:
            kind = error.kind
            faults += [f"{case}: {fault}" for fault in error.faults]
    if faults:
        raise ConformanceError(kind, faults)


def _is_described(description: KindDescription[Any, Any], field: str) -> bool:
    """Tell whether an optional field is given, such as "names.in_use"."""
    found: Any = description
    for name in field.split("."):
        found = None if found is None else getattr(found, name)
    return found is not None


def _may_implement(description: KindDescription[Any, Any], hook: str) -> bool:
    """Tell whether a kind has this hook; if it cannot even be made, the checks are to say so."""
    try:
        kind = description.kind()
    except Exception:
        return False
    if isinstance(kind, ResourceKind):
        return kind.implements(hook)
    return hasattr(getattr(kind, hook, None), f"{PROJECT}_impl")
