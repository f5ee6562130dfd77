"""The kinds own the meaning of what is noticed: each of its own, and others may join."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
from core_scripts import run_script

from probate import Ordering, Outcome, OwnershipTable, ResourceKind, ResourceOrchestrator
from probate.journal import Notice, boot_id, ipc_namespace, name_asked_for
from probate.orchestrator import registry_of
from probate.plugins.discovery import installed
from probate.settlement.settling import settle_rows

if TYPE_CHECKING:
    from pathlib import Path

    from probate.models import ResourceRecord

HEADER = {"boot": boot_id(), "ipc_namespace": ipc_namespace(), "pid": 1, "command": []}


def notice(call: str, name: str, **more: Any) -> Notice:
    return Notice(call, 7, name, {"path": name, "which": "msg", "uid": 0}, **more)


@pytest.mark.parametrize(
    ("kind", "description", "given"),
    [
        ("memory", "shared memory a", notice("open", "/dev/shm/a", is_temporary=True)),
        ("memory", "SysV segment with key 0x7", notice("shmget", "0x7")),
        ("ipc", "POSIX semaphore '/a'", notice("link", "/dev/shm/sem.a", is_temporary=True)),
        ("ipc", "POSIX semaphore '/a'", notice("open", "/dev/shm/sem.a", is_temporary=True)),
        ("ipc", "POSIX queue '/a'", notice("mq_open", "/a")),
        ("ipc", "SysV queue 0x0", notice("msgget", "0x0")),
        ("ipc", "SysV semaphore 0x1", notice("semget", "0x1")),
        ("sockets", "unix socket /run/a", notice("bind", "/run/a")),
        ("files", "FIFO /run/a", notice("mknod", "/run/a")),
        ("files", "temporary file /tmp/a", notice("open", "/tmp/a", is_temporary=True)),
        ("files", "temporary folder /tmp/a", notice("mkdir", "/tmp/a", is_temporary=True)),
        ("files", "temporary folder /dev/shm/a", notice("mkdir", "/dev/shm/a", is_temporary=True)),
        ("processes", "OS process 7", notice("setsid", "")),
        ("processes", "OS process 7 sleep", notice("exec", "sleep")),
        (None, "", notice("open", "/home/a/lock")),
        (None, "", notice("mkdir", "/home/a/folder")),
        (None, "", notice("link", "/tmp/a", is_temporary=True)),
        (None, "", notice("open", "/dev/shm/a/b")),
    ],
)
def test_each_notice_has_at_most_one_kind(
    orchestrator: ResourceOrchestrator, kind: str | None, description: str, given: Notice
) -> None:
    """With what it is for people, and whether it may be what the program was run for."""
    answers = orchestrator.plugin_manager.subset_hook_caller("noticed", [])
    records = [
        record for each in orchestrator.values() if (record := each.noticed(given)) is not None
    ]
    if kind is None:
        assert records == []
        assert answers(notice=given) is None
        return
    (record,) = records

    assert (record.kind, record.description) == (kind, description)
    assert record.evidence == "notified"
    assert record.os_pid == 7
    assert record.holds_data is description.startswith("temporary")


def leases(removed: list[ResourceRecord]) -> ResourceKind:
    """A kind of somebody else's: sockets of a certain name are more to it than sockets."""

    def noticed(given: Notice) -> ResourceRecord | None:
        if given.call != "bind" or not given.basename.startswith("lease-"):
            return None
        return given.record("leases", f"lease {given.basename}")

    def reclaim(record: ResourceRecord, dry_run: bool) -> Outcome:
        removed.append(record)
        return Outcome.RELEASED

    table: OwnershipTable[object] = OwnershipTable("leases", lambda _: None)
    return ResourceKind(table, Ordering(15), noticed=noticed, reclaim=reclaim)


def test_a_kind_of_somebody_elses_takes_what_is_its_own() -> None:
    """Before one that is cleaned later; a kind that fails is no reason to ask no other."""

    def fails(_: Notice) -> ResourceRecord | None:
        raise RuntimeError("as it would")

    removed: list[ResourceRecord] = []
    orchestrator = ResourceOrchestrator().discover(only=["sockets"])
    orchestrator.register(leases(removed), "leases")
    broken: OwnershipTable[object] = OwnershipTable("broken", lambda _: None)
    orchestrator.register(ResourceKind(broken, Ordering(90), noticed=fails), "broken")
    row = notice("bind", "/run/lease-a")._replace(state="confirmed").to_row(1, 0.0)
    found = [(1, {"process": {"pid": 1}}), (2, row)]
    results = settle_rows("host", HEADER, found, registry_of(orchestrator))

    assert [(each.kind, each.description) for each in results.rows] == [("leases", "lease lease-a")]
    assert [record.identity["path"] for record in removed] == ["/run/lease-a"]
    assert removed[0].identity["boot"] == boot_id()


@pytest.mark.parametrize("error", [SystemExit(0), asyncio.CancelledError(), KeyboardInterrupt()])
def test_a_kind_that_exits_has_failed_and_holds_up_no_other(error: BaseException) -> None:
    """The sweep ended with it, without a word, and what others had left stayed for ever."""

    def exits(record: ResourceRecord, dry_run: bool) -> Outcome:
        raise error

    removed: list[ResourceRecord] = []
    table: OwnershipTable[object] = OwnershipTable("exiting", lambda _: None)
    exiting = ResourceKind(
        table,
        Ordering(90),
        noticed=lambda given: given.record("exiting", "it") if given.name == "/run/a" else None,
        reclaim=exits,
    )
    orchestrator = ResourceOrchestrator().register(exiting, "exiting")
    orchestrator.register(leases(removed), "leases")
    found: list[tuple[int, dict[str, Any]]] = [(1, {"process": {"pid": 1}})]
    for number, name in enumerate(("/run/a", "/run/lease-a"), 2):
        row = notice("bind", name)._replace(state="confirmed").to_row(1, 0.0)
        found.append((number, row))
    results = settle_rows("host", HEADER, found, registry_of(orchestrator))

    assert [(each.kind, str(each.outcome)) for each in results.rows] == [
        ("exiting", "failed"),
        ("leases", "released"),
    ]
    assert type(error).__name__ in results.rows[0].text
    assert len(removed) == 1


@pytest.mark.parametrize(("has_ended", "policy"), [(True, "crash"), (False, "report")])
def test_what_is_left_by_policy_reaches_no_kind(has_ended: bool, policy: str) -> None:
    """Nor is it tried again."""
    removed: list[ResourceRecord] = []
    kind = leases(removed)
    orchestrator = ResourceOrchestrator().register(kind, "leases")
    row = notice("bind", "/run/lease-a")._replace(state="confirmed").to_row(1, 0.0)
    found = [(1, {"process": {"pid": 1}, "ended": has_ended}), (2, row)]
    results = settle_rows("host", HEADER, found, registry_of(orchestrator), policy=policy)
    if policy == "crash":
        # It holds no data.
        assert len(removed) == 1
        return

    assert removed == []
    assert results.tried == ()
    assert [each.outcome for each in results.rows] == [Outcome.REFUSED]


@pytest.mark.parametrize("seconds", [0, 10])
def test_a_successor_of_what_was_about_to_be_made_is_left(place: Path, seconds: int) -> None:
    """Nobody could note what was made; so it is what was made then, and not much later."""
    path = place / "fifo"
    asked = name_asked_for(str(path))
    since = asked["born_since"] - seconds * 10**9
    identity = {**asked, "born_since": since, "uid": os.geteuid()}
    row = Notice("mknod", 7, str(path), identity).to_row(1, 0.0)
    os.mkfifo(path)
    found = [(1, {"process": {"pid": 1}}), (2, row)]
    results = settle_rows("host", HEADER, found, installed(["files"]))

    assert path.exists() is bool(seconds)
    assert len(results.rows) == (0 if seconds else 1)


def test_no_more_is_loaded_than_gives_back() -> None:
    """All waits for it in the end: nothing that owning takes, nor is garbage looked for in it."""
    ran = run_script(
        "import gc, sys; from probate.run.kinds import kinds; order = kinds().order(); "
        "too_much = {'asyncio', 'probate.orchestrator', 'probate.termination.steps'}; "
        "print({'memory', 'ipc', 'sockets', 'files'} <= {*order}, gc.get_freeze_count() > 0, "
        "*too_much.intersection(sys.modules))"
    )

    assert ran.stdout == "True True\n"
