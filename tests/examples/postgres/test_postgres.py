"""The kind `postgres` of examples/plugins, on a real server."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from journal_hosts import JournalHost, wait_while
from postgres_server import needs_postgres
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from probate import Outcome, RefusedResourceError, ResourceOrchestrator
from probate.models import ResourceRecord
from probate.settlement import sweep
from probate.testing import KindDescription, NameDescription, check_conformance
from probate_postgres import AdvisoryLock, PostgresManager, PostgresResource, TemporaryDatabase
from probate_postgres.server import address, reclaim

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from probate.settlement import RowAccount

pytestmark = [needs_postgres, pytest.mark.timeout(180)]


@pytest.fixture
def superuser(conninfo: str) -> str:
    """How to connect as who may do all."""
    return make_conninfo(conninfo, user="postgres")


class Witness:
    """Asks the server itself."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.session = psycopg.connect(conninfo, autocommit=True)

    def ask(self, query: str, *values: object) -> Any:
        [answer] = self.session.execute(query.encode(), values).fetchone() or [None]
        return answer

    def run(self, query: str, name: str) -> None:
        """Run it elsewhere: also in a forked child, which has no session of its own."""
        with contextlib.closing(psycopg.connect(self.conninfo, autocommit=True)) as session:
            session.execute(query.format(sql.Identifier(name).as_string()).encode())

    def has_database(self, name: str) -> bool:
        return bool(self.ask("SELECT count(*) FROM pg_database WHERE datname = %s", name))

    def has_lock(self, backend: int) -> bool:
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s"
        return bool(self.ask(query, backend))

    def use(self, database: str) -> contextlib.closing[psycopg.Connection[tuple[Any, ...]]]:
        return contextlib.closing(psycopg.connect(make_conninfo(self.conninfo, dbname=database)))


@pytest.fixture
def witness(conninfo: str) -> Iterator[Witness]:
    witness = Witness(conninfo)
    yield witness
    witness.session.close()


def kind(conninfo: str) -> PostgresResource:
    return PostgresResource(PostgresManager(conninfo))


@pytest.mark.usefixtures("nothing_remains")
def test_advisory_locks_keep_the_contract(witness: Witness) -> None:
    """By the conformance kit; the server's own list of locks is the witness."""
    check_conformance(
        KindDescription[PostgresResource, AdvisoryLock](
            kind=lambda: kind(witness.conninfo),
            make=lambda kind, pid: kind.manager.lock(pid, os.urandom(8).hex()),
            identify=lambda lock: lock.backend,
            is_alive=witness.has_lock,
            use=lambda lock: lock.session.execute("SELECT 1"),
            end=lambda lock: lock.session.close(),
            many=8,
        )
    )


@pytest.mark.usefixtures("nothing_remains")
def test_temporary_databases_keep_the_contract(witness: Witness) -> None:
    """By the conformance kit, also when their host is killed."""
    check_conformance(
        KindDescription[PostgresResource, TemporaryDatabase](
            kind=lambda: kind(witness.conninfo),
            make=lambda kind, pid: kind.manager.create_database(pid),
            identify=lambda database: database.name,
            is_alive=witness.has_database,
            end=lambda database: witness.run("DROP DATABASE {}", database.name),
            keep_busy=lambda database: witness.use(database.name),
            names=NameDescription(
                name=lambda database: database.name,
                is_there=witness.has_database,
                remove=lambda name: witness.run("DROP DATABASE {}", name),
                succeed=lambda name: witness.run("CREATE DATABASE {}", name),
                in_use=witness.use,
            ),
            many=2,
        )
    )


def test_whoever_wants_a_lock_gets_it_when_its_owner_ends(
    conninfo: str, orchestrator: ResourceOrchestrator
) -> None:
    """Before that, at once or after a time that is short, nobody does."""
    orchestrator.register(kind(conninfo))
    postgres = orchestrator[PostgresResource].manager
    for key in (7, -(2**63), "nightly report"):
        postgres.lock(1, key)
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError, match="another session has the advisory lock"):
                postgres.lock(2, key, timeout=timeout)
        waiting = threading.Thread(target=postgres.lock, args=(2, key), kwargs={"timeout": 60})
        waiting.start()

        assert orchestrator.cleanup_process(1).stats.by_type == {"postgres": 1}
        waiting.join()
        assert orchestrator.cleanup_process(2).stats.by_type == {"postgres": 1}


def test_a_lock_whose_session_the_server_has_ended_is_gone(witness: Witness) -> None:
    """Which is no error."""
    postgres = kind(witness.conninfo)
    lock = postgres.manager.lock(1, "key")
    witness.ask("SELECT pg_terminate_backend(%s, 60000)", lock.backend)
    stats = postgres.table.cleanup(1)

    assert (stats.resources_freed, stats.errors) == (0, ())
    assert lock.session.closed


def test_a_connection_that_is_adopted_goes_before_its_database(
    witness: Witness, orchestrator: ResourceOrchestrator
) -> None:
    """One that is not keeps it; the account says whose it is."""
    orchestrator.register(kind(witness.conninfo))
    database = orchestrator[PostgresResource].manager.create_database(1)
    adopted = psycopg.connect(database.conninfo)
    orchestrator.adopt(1, adopted, release=psycopg.Connection.close)
    with witness.use(database.name) as other:
        result = orchestrator.cleanup_process(1)

        [error] = result.errors
        assert (adopted.closed, result.stats.by_type) == (True, {"callbacks": 1})
        assert error.outcome is Outcome.BUSY
        assert error.message.startswith(f"still used by session {other.info.backend_pid} of tester")
    assert orchestrator.cleanup_process(1).stats.by_type == {"postgres": 1}
    assert not witness.has_database(database.name)


def test_what_is_noted_of_a_server_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is, and wherever it is from; all else that it takes to connect is there."""
    monkeypatch.setenv("PGPASSWORD", "secret word")
    monkeypatch.setenv("PGPORT", "5433")
    monkeypatch.setenv("PGUSER", "env")
    given = make_conninfo(
        host="db.example", user="me", sslpassword="secret word", sslmode="require"
    )

    assert conninfo_to_dict(address(given)) == {
        "host": "db.example", "port": "5433", "user": "me", "sslmode": "require",
    }  # fmt: skip
    assert address("postgresql://me:secret%20word@db.example/x") == address(
        "host=db.example dbname=x user=me password='secret word'"
    )
    shown = repr(TemporaryDatabase("name", 1, "password='secret word'"))
    assert "secret" not in shown


def test_what_is_not_said_is_from_the_environment(
    conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for all of libpq; the database is `postgres` if nobody says another."""
    said = {name: value for name, value in conninfo_to_dict(conninfo).items() if name != "dbname"}
    postgres = kind(make_conninfo(**said))  # type: ignore[arg-type]  # as it was read
    locks = [postgres.manager.lock(1, 1)]
    monkeypatch.setenv("PGDATABASE", "template1")
    locks.append(postgres.manager.lock(1, 1))

    assert [lock.session.info.dbname for lock in locks] == ["postgres", "template1"]
    assert postgres.table.cleanup(1).resources_freed == 2


def record(conninfo: str, **identity: object) -> ResourceRecord:
    found = {"name": "probate_none", "server": address(conninfo), "system": "1", **identity}
    return ResourceRecord(kind="postgres", description="database", os_pid=1, identity=found)


def test_a_server_that_is_another_or_does_not_answer_is_asked_again_later(conninfo: str) -> None:
    """Nothing is taken for gone that may be there when it is back."""
    with pytest.raises(RefusedResourceError, match="another server answers at its address"):
        reclaim(record(conninfo), False)
    with pytest.raises(RefusedResourceError, match="its server cannot be asked") as caught:
        reclaim(record(make_conninfo(conninfo, host="/nonexistent")), False)

    assert "secret" not in str(caught.value)


HOST = """
from probate import ResourceOrchestrator, UnsettledResourceError
from probate_postgres import PostgresManager, PostgresResource
postgres = PostgresManager(sys.argv[2])
orchestrator = ResourceOrchestrator().register(PostgresResource(postgres))
builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
manager = builder.with_journal(sys.argv[1], reaper=False).build()
owner = manager.create_process("owner")
try:
    postgres.create_database(owner.pid)
except UnsettledResourceError as error:
    say(error)
    say(orchestrator.has_resources(owner.pid), manager.terminate_process(owner.pid))
sys.stdin.read()
"""


def host(state: Path, conninfo: str) -> JournalHost:
    """A host that makes a database, and says if it does not know; killed at the end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return JournalHost(HOST, state, conninfo, env=environment)


def swept(state: Path) -> RowAccount:
    """What a sweep says of the one thing that a dead host has left, with no environment to help."""
    orchestrator = ResourceOrchestrator().register(PostgresResource())
    [account] = [each for each in sweep(orchestrator, str(state)) if each.rows]
    [row] = account.rows
    return row


#: Who makes a database; and who waits for a lock while doing so.
MAKER = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'probate~_%%' ESCAPE '~'"
BLOCKED = f"{MAKER} AND wait_event_type = 'Lock'"


def test_what_the_server_still_makes_for_a_dead_host_is_dropped_when_it_is_made(
    witness: Witness, superuser: str, tmp_path: Path
) -> None:
    """The server goes on with what it was asked for; a sweep that comes too early comes again."""
    with psycopg.connect(superuser) as blocker:
        # Whoever makes a database waits here.
        blocker.execute("LOCK TABLE pg_database IN SHARE MODE")
        with host(tmp_path, witness.conninfo):
            wait_while(lambda: not witness.ask(BLOCKED))
        early = swept(tmp_path)
    wait_while(lambda: witness.ask(MAKER))
    late = swept(tmp_path)

    assert (early.outcome, early.text) == (Outcome.BUSY, "its server is just making it")
    assert (late.outcome, late.tries) == (Outcome.RELEASED, 2)
    assert not witness.has_database(late.description.removeprefix("database "))


def test_what_a_lost_connection_was_to_make_is_looked_for_by_a_sweep(
    witness: Witness, superuser: str, tmp_path: Path
) -> None:
    """Nobody knows whether it was made: nobody owns it, and it is in the journal."""
    with psycopg.connect(superuser) as blocker, host(tmp_path, witness.conninfo) as doubtful:
        blocker.execute("LOCK TABLE pg_database IN SHARE MODE")
        wait_while(lambda: not witness.ask(BLOCKED))
        blocker.execute("SELECT pg_terminate_backend(%s)", [witness.ask(BLOCKED)])
        blocker.commit()
        said, left = doubtful.line(), doubtful.line()
    # As if it had been made before the connection was lost.
    name = said.split(" database ")[1].split()[0]
    witness.run("CREATE DATABASE {}", name)
    row = swept(tmp_path)

    assert said.startswith("the connection was lost while database probate_")
    assert left.startswith("False PID 1 cleanup: 0 resources freed")
    assert row.outcome is Outcome.RELEASED
    assert not witness.has_database(name)
