"""Checks of what becomes of named things when their host is killed."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from probate import Outcome
from probate.testing.conformance.killedhost import killed_host, other_process, settle

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate.settlement import RowAccount
    from probate.testing.conformance.description import NameDescription
    from probate.testing.conformance.trial import Trial


def the_dead_leave_nothing(trial: Trial) -> None:
    """What a killed host has left by name is given back by a sweep, once, from its journal."""
    names = _names(trial)
    with killed_host(trial, partial(_make, trial)) as (name, store):
        if not names.is_there(name):
            raise trial.fail(f"{name!r} is gone with its host: then it needs no journal, or name")
        tried = _settled(trial, store, dry_run=True)
        if not names.is_there(name):
            raise trial.fail(f"reclaim() removes {name!r} in a dry run")
        done = _settled(trial, store)
        _check_reclaimed(trial, name, done)
        if tried.outcome is not done.outcome:
            raise trial.fail(
                f"reclaim() says {done.outcome}, and said {tried.outcome} in the dry run before it"
            )


def what_the_dead_adopted_goes_too(trial: Trial) -> None:
    """What was made elsewhere, and adopted by a host that is killed, is given back as well."""

    def adopt(_kind: Any, manager: ProcessManager, pid: int) -> Any:
        make_elsewhere: Any = trial.description.make_elsewhere
        manager.orchestrator.adopt(pid, thing := make_elsewhere())
        return _names(trial).name(thing)

    with killed_host(trial, adopt) as (name, store):
        _check_reclaimed(trial, name, _settled(trial, store))


def successors_are_left_alone(trial: Trial) -> None:
    """What a stranger has made under the name of a dead host's thing stays as it is."""
    names = _names(trial)
    with killed_host(trial, partial(_make, trial)) as (name, store):
        if names.is_there(name):
            names.remove(name)
        if names.succeed is not None:
            names.succeed(name)
            if not names.is_there(name):
                raise trial.fail(f"the description's `succeed` has made nothing under {name!r}")
        row = _settled(trial, store)
        if names.succeed is not None and not names.is_there(name):
            raise trial.fail(
                f"reclaims by name: a successor under {name!r}, which is another thing, was "
                "removed; compare with what no later thing has again"
            )
        if row.outcome is not Outcome.ALREADY_GONE:
            raise trial.fail(
                f"reclaim() says {row.outcome} of {name!r}, which was gone: {row.text or 'why?'}"
            )


def what_was_never_confirmed_is_settled(trial: Trial) -> None:
    """Of what was just being made when its host was killed the account says what has become of it.

    It is given back, or kept with a reason, where what is known before it is made cannot tell it.
    """
    names = _names(trial)
    with killed_host(trial, partial(_make, trial), confirms=False) as (name, store):
        row = _settled(trial, store)
        is_there = names.is_there(name)
        if row.outcome not in {Outcome.RELEASED, Outcome.REFUSED, Outcome.ALREADY_GONE}:
            raise trial.fail(
                f"reclaim() says {row.outcome} of a record in state 'intent', which has but what "
                f"is known before the thing is made: {row.text}"
            )
        if is_there is not row.is_kept:
            state = "is still there" if is_there else "is gone"
            raise trial.fail(
                f"reclaim() says {row.outcome} of {name!r}, which was never confirmed, and {state}"
            )


def what_is_in_use_is_kept(trial: Trial) -> None:
    """What somebody uses when its host is dead is refused, and given back once it is free."""
    names = _names(trial)
    in_use: Any = names.in_use
    with killed_host(trial, partial(_make, trial)) as (name, store):
        uses = contextlib.ExitStack()
        with other_process(trial, "`in_use`", lambda: bool(uses.enter_context(in_use(name)))):
            row = _settled(trial, store)
            if not names.is_there(name) or row.outcome is Outcome.RELEASED:
                raise trial.fail(f"reclaim() removes {name!r} while somebody uses it")
            if row.outcome not in {Outcome.REFUSED, Outcome.BUSY}:
                raise trial.fail(f"reclaim() says {row.outcome} of what is in use: {row.text}")
        _check_reclaimed(trial, name, _settled(trial, store))


def the_journal_forgets_what_is_gone(trial: Trial) -> None:
    """What was given back, by hand or with its owner, is in no journal any more."""

    def make_and_end(kind: Any, manager: ProcessManager, pid: int) -> Any:
        other = manager.create_process("other").pid
        things = [trial.description.make(kind, each) for each in (pid, other)]
        name = _names(trial).name(things[0])
        if (give_back := trial.description.give_back) is not None:
            give_back(kind, pid, things[0])
        else:
            manager.orchestrator.give_back(pid, things[0])
        manager.terminate_process(other)
        return name

    with killed_host(trial, make_and_end) as (name, store):
        if rows := settle(trial, store):
            raise trial.fail(
                f"the journal has {len(rows)} rows of what was given back before its host died, "
                f"such as {rows[0].description!r}: is everything released through the table?"
            )
        del name


def _names(trial: Trial) -> NameDescription[Any]:
    """Return what is described of names; else these checks are not made."""
    names: Any = trial.description.names
    return names  # type: ignore[no-any-return]  # as described


def _make(trial: Trial, kind: Any, _manager: ProcessManager, pid: int) -> Any:
    return _names(trial).name(trial.description.make(kind, pid))


def _settled(trial: Trial, store: str, *, dry_run: bool = False) -> RowAccount:
    """Settle a dead host that has left one thing; return what became of it."""
    rows = settle(trial, store, dry_run=dry_run)
    if len(rows) != 1:
        raise trial.fail(
            f"the journal has {len(rows)} rows of one thing that outlives its host: is it made by "
            "acquire(..., named=...)?"
        )
    return rows[0]


def _check_reclaimed(trial: Trial, name: Any, row: RowAccount) -> None:
    """Fail unless a row says that its thing was given back, and the kernel has it no more."""
    if row.outcome is not Outcome.RELEASED:
        raise trial.fail(f"{name!r} is not reclaimed: it is {row.outcome}: {row.text}")
    if _names(trial).is_there(name):
        raise trial.fail(f"reclaim() says RELEASED of {name!r}, and it is still there")
