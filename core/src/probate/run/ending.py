"""The end of a run: its processes, then what they have left by name."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from probate.run.account import RunAccount, SettledThing
from probate.run.held import held_files, things_held
from probate.run.kinds import kinds, load_ahead
from probate.run.tree import names_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate.run.served import ServedRun
    from probate.run.watching import Watch

#: Signals after which whoever is left is asked to stop, as after an exit.
_ASKED: Final = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}

#: A shell exits so, and a signal's number more, when what it ran was killed (sh(1)).
_KILLED: Final = 128


def end_run(
    run: ServedRun,
    inner: Iterable[ServedRun],
    watched: Callable[[], Watch | None],
    status: int | None,
) -> RunAccount:
    """End all of a run, give back what it left, and say what became of it.

    What runs within it have left that have not ended by then goes with it. `watched` returns the
    watch, if anything was noticed; `status` is how the command has ended (waitpid(2)), None if
    nobody knows.
    """
    if (watch := watched()) is not None and watch.rows.has_things():
        # While its processes are ended.
        load_ahead()
    members = run.tree.members()
    held = held_files(members, run.facts.begun) if members else {}
    things = run.tree.end(run.facts.options.grace if _is_asked(status) else 0)
    if run.tree.unsure:
        who = names_of(run.tree.unsure)
        run.note(f"has the environment of the run alone, and was left: {who}")
    if run.tree.has_lost_sight:
        run.note("forks faster than it can be found, and may be left: some process of the run")
    found: list[tuple[int, dict[str, Any]]] = []
    if (watch := watched()) is not None:
        rows = watch.rows
        for each in inner:
            if each.settling is not None:
                each.settling.join()
            rows.hand_over(each.owner, run.owner)
        rows.drop_processes(run.owner)
        if _has_ended_by_itself(status):
            rows.mark_ended(run.owner)
        rows.look_last(run.owner)
        rows.drop_gone()
        found = rows.of(run.owner)
        if len(found) > 1:
            with watch.giving_back:
                things += _settle(watch, found, run.facts.options.settle, is_saved=status is None)
        if rows.problem:
            run.note(f"not all was noted in the journal: {rows.problem}")
    things += things_held(held, (row["notice"][2] for _, row in found if "notice" in row))
    return RunAccount(tuple(things), tuple(run.notes.values()))


def _settle(
    watch: Watch, found: list[tuple[int, dict[str, Any]]], policy: str, *, is_saved: bool
) -> list[SettledThing]:
    # First, since it may be just loading what follows, on another thread.
    registry = kinds()
    from probate.settlement.account import HostAccount, HostState
    from probate.settlement.settling import save_account, settle_rows

    rows = watch.rows
    header = rows.header
    host = "run" if rows.folder is None else rows.folder.name
    results = settle_rows(host, header, found, registry, policy=policy)
    kept = {row.row for row in results.rows if row.is_kept}
    tried = {row.number for row in results.tried if f"{host}:{row.number}" in kept}
    rows.drop(number for number, _ in found if number not in tried)
    if is_saved and rows.folder is not None:
        account = HostAccount(
            store=str(rows.folder),
            pid=header["pid"],
            command=tuple(header["command"]),
            state=HostState.SETTLED,
            owners=results.owners,
            rows=results.rows,
        )
        with suppress(OSError):
            save_account(rows.folder.parent, account)
    makers = {f"{host}:{number}": row["notice"][1] for number, row in found if "notice" in row}
    return [
        SettledThing(
            row.kind,
            row.description,
            makers[row.row],
            "notified",
            str(row.outcome),
            row.text,
        )
        for row in results.rows
        if row.outcome != "already gone"
    ]


def _is_asked(status: int | None) -> bool:
    """Tell whether whoever is left is to be asked to stop, before it is killed."""
    if status is None:
        return False
    return not os.WIFSIGNALED(status) or os.WTERMSIG(status) in _ASKED


def _has_ended_by_itself(status: int | None) -> bool:
    """Tell whether a command has ended as it wanted to, whatever its exit status says of it."""
    return status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status) <= _KILLED
