"""Checks of what becomes of named things when their host is killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import tempfile
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final

from probate import Outcome, ProcessManager, ResourceOrchestrator
from probate.errors import describe_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate.settlement import RowAccount
    from probate.testing.conformance.description import KindDescription, NameDescription
    from probate.testing.conformance.trial import Trial

#: Seconds that a host gets to make its things.
_START: Final = 20.0


def the_dead_leave_nothing(trial: Trial) -> None:
    """What a killed host has left by name is given back by a sweep, once, from its journal."""
    names = _names(trial)
    with _killed_host(trial) as (name, store):
        if not names.is_there(name):
            raise trial.fail(f"{name!r} is gone with its host: then it needs no journal, or name")
        tried = _settled(trial, store, dry_run=True)
        if not names.is_there(name):
            raise trial.fail(f"reclaim() removes {name!r} in a dry run")
        done = _settled(trial, store)
        if done.outcome is not Outcome.RELEASED:
            raise trial.fail(f"{name!r} is not reclaimed: it is {done.outcome}: {done.text}")
        if names.is_there(name):
            raise trial.fail(f"reclaim() says RELEASED of {name!r}, and it is still there")
        if tried.outcome is not done.outcome:
            raise trial.fail(
                f"reclaim() says {done.outcome}, and said {tried.outcome} in the dry run before it"
            )


def successors_are_left_alone(trial: Trial) -> None:
    """What a stranger has made under the name of a dead host's thing stays as it is."""
    names = _names(trial)
    succeed = names.succeed
    if succeed is None:
        return
    with _killed_host(trial) as (name, store):
        if names.is_there(name):
            names.remove(name)
        succeed(name)
        if not names.is_there(name):
            raise trial.fail(f"the description's `succeed` has made nothing under {name!r}")
        row = _settled(trial, store)
        if not names.is_there(name):
            raise trial.fail(
                f"reclaims by name: a successor under {name!r}, which is another thing, was "
                "removed; compare with what no later thing has again"
            )
        if row.outcome is Outcome.RELEASED:
            raise trial.fail(f"reclaim() says RELEASED of {name!r}, which is another thing by now")


def _names(trial: Trial) -> NameDescription[Any]:
    names = trial.description.names
    assert names is not None  # noqa: S101  or these checks are not made
    return names


def _settled(trial: Trial, store: str, *, dry_run: bool = False) -> RowAccount:
    """Settle the dead host as `probate sweep` does; return the account of its one thing."""
    from probate.settlement import HostState, sweep

    orchestrator = ResourceOrchestrator().register(trial.description.kind(), trial.description.name)
    [trial.name] = orchestrator.registered_types()
    rows = [
        row
        for account in sweep(orchestrator, store, dry_run=dry_run)
        if account.state is HostState.SETTLED
        for row in account.rows
        if row.kind == trial.name
    ]
    if len(rows) != 1:
        raise trial.fail(
            f"the journal has {len(rows)} rows of one thing that outlives its host: is it made by "
            "acquire(..., named=...)?"
        )
    return rows[0]


@contextlib.contextmanager
def _killed_host(trial: Trial) -> Iterator[tuple[Any, str]]:
    """Have a host make one thing, and SIGKILL it; the thing's name, and where its journal is."""
    names = _names(trial)
    with tempfile.TemporaryDirectory(prefix="probate-conformance-") as store:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            # The child has one thread, and calls nothing that may be locked by another.
            warnings.simplefilter("ignore", DeprecationWarning)
            host = os.fork()
        if not host:
            _be_host(trial.description, store, writer)
        os.close(writer)
        try:
            said = _read(reader)
        finally:
            os.close(reader)
            os.kill(host, signal.SIGKILL)
            os.waitpid(host, 0)
        if said is None:
            raise trial.fail(f"a host did not come to make one within {_START:g} seconds")
        if "error" in said:
            raise trial.fail(f"a host cannot make one: {said['error']}")
        try:
            yield said["name"], store
        finally:
            with contextlib.suppress(Exception):
                if names.is_there(said["name"]):
                    names.remove(said["name"])


def _read(reader: int) -> dict[str, Any] | None:
    """Read the one line that a host says; None if it says none in time."""
    said = b""
    while not said.endswith(b"\n"):
        if not select.select([reader], [], [], _START)[0]:
            return None
        part = os.read(reader, 1 << 16)
        if not part:
            return None
        said += part
    answer: dict[str, Any] = json.loads(said)
    return answer


def _be_host(description: KindDescription[Any, Any], store: str, writer: int) -> None:
    """Make one thing, say its name, and wait to be killed. Never returns."""
    try:
        kind = description.kind()
        orchestrator = ResourceOrchestrator().register(kind, description.name)
        builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
        manager = builder.with_journal(store, reaper=False).build()
        thing = description.make(kind, manager.create_process("owner").pid)
        assert description.names is not None  # noqa: S101  as above
        said = {"name": description.names.name(thing)}
    except BaseException as error:
        said = {"error": describe_error(error)}
    try:
        os.write(writer, json.dumps(said).encode() + b"\n")
        threading.Event().wait(2 * _START)
    finally:
        os._exit(1)
