"""Checks of adoption: what is of this kind is taken, once, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probate.errors import AlreadyOwnedError, ProbateError, UnadoptableError, describe_error

if TYPE_CHECKING:
    from probate.testing.conformance.trial import Trial


class _Foreign:
    """A thing of no kind, with what most have that can be given back."""

    def close(self) -> None:
        """Do nothing."""


def what_is_adopted_is_released(trial: Trial) -> None:
    """What was made elsewhere is owned once adopted, by one process, and released with it."""
    make_elsewhere: Any = trial.description.make_elsewhere
    served = trial.serve()
    pid, other = served.owner(), served.owner("other")
    owned = trial.note(make_elsewhere())
    try:
        served.orchestrator.adopt(pid, owned.thing)
    except UnadoptableError as error:
        raise trial.fail(f"adopt() does not take what is of the kind: {error}") from error
    if not served.holds(pid):
        raise trial.fail("has_resources() knows nothing of what was adopted: a second counter?")
    try:
        served.orchestrator.adopt(other, owned.thing)
    except AlreadyOwnedError:
        pass
    except ProbateError as error:
        raise trial.fail(
            f"a second adoption of one thing is to raise AlreadyOwnedError, not {error!r}"
        ) from error
    else:
        raise trial.fail(
            "one thing is adopted by two owners: say what may have one only, as in "
            "OwnershipTable(kind, identity=...)"
        )
    served.end_without_fault(other, [])
    trial.check_there([owned], "when a process ended that was refused its adoption")
    served.end_without_fault(pid, [owned])


def what_is_foreign_is_not_adopted(trial: Trial) -> None:
    """`adopt` returns None for what is not of the kind, and leaves it to others."""
    served = trial.serve()
    pid = served.owner()
    adopt = served.hooks["adopt"]
    for thing in (object(), _Foreign(), "text", lambda: None):
        try:
            answer = adopt(pid, thing)
        except Exception as error:
            raise trial.fail(
                f"adopt() of {thing!r}, which is not of the kind, is to return None, and raises "
                f"{describe_error(error)}"
            ) from error
        if answer is not None or served.holds(pid):
            raise trial.fail(f"adopts anything: adopt() takes {thing!r}, not of the kind")
