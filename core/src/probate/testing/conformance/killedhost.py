"""A host that makes things by name, and is killed by SIGKILL: a child of this process."""

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

from probate import ProcessManager, ResourceOrchestrator
from probate.errors import describe_error
from probate.journal.host import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate.settlement import RowAccount
    from probate.testing.conformance.trial import Trial

    #: Makes a thing of a kind for the managers' process of that pid; returns its name.
    Make = Callable[[Any, ProcessManager, int], Any]

#: Seconds that a host gets to make its things.
_START: Final = 20.0


@contextlib.contextmanager
def killed_host(trial: Trial, make: Make, *, confirms: bool = True) -> Iterator[tuple[Any, str]]:
    """Have a host make a thing, and kill it; the thing's name, and where the host's journal is.

    One that never `confirms` was killed, as far as its journal says, when the thing had just been
    made. What is left of that name is removed at the end.
    """
    with tempfile.TemporaryDirectory(prefix="probate-conformance-") as store:

        def be_host() -> Any:
            if not confirms:
                # In the child alone, which is killed.
                Row.confirm = lambda _row, _made: None  # type: ignore[assignment,method-assign]
            kind = trial.description.kind()
            orchestrator = ResourceOrchestrator().register(kind, trial.description.name)
            builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
            manager = builder.with_grace(1).with_journal(store, reaper=False).build()
            return make(kind, manager, manager.create_process("owner").pid)

        with other_process(trial, "a host", be_host) as name:
            # Until here it lives.
            pass
        try:
            yield name, store
        finally:
            names = trial.description.names
            with contextlib.suppress(Exception):
                if names is not None and names.is_there(name):
                    names.remove(name)


@contextlib.contextmanager
def other_process(trial: Trial, what: str, function: Callable[[], Any]) -> Iterator[Any]:
    """Call a function in a child, which lives to the end of the block, and is killed then.

    Within is what it has returned, by way of JSON.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # The child has one thread, and needs nothing that another may have locked.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _answer_and_wait(function, writer)
    os.close(writer)
    try:
        with open(reader, "rb") as answers:
            said = answers.readline() if select.select([reader], [], [], _START)[0] else b""
        if not said:
            raise trial.fail(f"{what} has not said a word within {_START:g} seconds")
        is_result, value = json.loads(said)
        if not is_result:
            raise trial.fail(f"{what} fails: {value}")
        yield value
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def settle(trial: Trial, store: str, *, dry_run: bool = False) -> list[RowAccount]:
    """Settle a dead host as `probate sweep` does; return what became of things of the kind."""
    from probate.settlement import HostState, sweep

    orchestrator = ResourceOrchestrator().register(trial.description.kind(), trial.description.name)
    [trial.name] = orchestrator.registered_types()
    return [
        row
        for account in sweep(orchestrator, store, dry_run=dry_run)
        if account.state is HostState.SETTLED
        for row in account.rows
        if row.kind == trial.name
    ]


def _answer_and_wait(function: Callable[[], Any], writer: int) -> None:
    """Call it in the child, say what came of it, and wait to be killed. Never returns."""
    try:
        try:
            answer = json.dumps([True, function()])
        except BaseException as error:
            answer = json.dumps([False, describe_error(error)])
        os.write(writer, answer.encode() + b"\n")
        threading.Event().wait(2 * _START)
    finally:
        os._exit(1)
