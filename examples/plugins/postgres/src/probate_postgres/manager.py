"""PostgresManager: advisory locks and temporary databases, which a process owns."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from probate import BusyResourceError, Outcome, OwnershipTable, UnsettledResourceError
from probate.journal import Named
from probate_postgres.server import address, connect, drop, oid_of, system_of

Session = psycopg.Connection[tuple[Any, ...]]


@final
@dataclass(frozen=True, slots=True)
class AdvisoryLock:
    """One advisory lock, of a session of its own that ends with it."""

    key: int | str
    session: Session = field(repr=False, compare=False)

    @property
    def backend(self) -> int:
        """The process id of the session, at its server."""
        return self.session.info.backend_pid


@final
@dataclass(frozen=True, slots=True)
class TemporaryDatabase:
    """One database, made for an owner."""

    name: str
    oid: int
    #: What to connect by. It has a password if the manager's has.
    conninfo: str = field(repr=False)


@final
class PostgresManager:
    """Takes advisory locks and makes temporary databases on one PostgreSQL server. Thread-safe.

    `conninfo` says how to connect (libpq, "Connection Strings"); what it does not say is from the
    environment, such as PGHOST, and else libpq's choice, but for the database: `postgres`.
    """

    def __init__(self, conninfo: str = "") -> None:
        self._conninfo = conninfo
        self.table: OwnershipTable[AdvisoryLock | TemporaryDatabase] = OwnershipTable(
            "postgres", self._release
        )

    def lock(self, pid: int, key: int | str, *, timeout: float = 0) -> AdvisoryLock:
        """Take an advisory lock for `pid`, which no other session gets while it lives.

        `key` is a number of 64 bits, or a text, of which the server makes one. `timeout` is how
        many seconds to wait for it. Raises TimeoutError if somebody has it still;
        psycopg.OperationalError.
        """
        return self.table.acquire(pid, partial(self._lock, key, timeout))

    def create_database(self, pid: int, *, template: str = "template1") -> TemporaryDatabase:
        """Make a database for `pid`, as a copy of another; its name is random.

        Raises UnsettledResourceError if the connection is lost meanwhile, so that nobody knows
        whether it was made; psycopg.Error.
        """
        name = f"probate_{os.urandom(8).hex()}"
        # By this name the server says who makes it, should this process be gone.
        with closing(connect(self._conninfo, application_name=name)) as session:
            before = {
                "name": name,
                "is_random": True,
                "server": address(self._conninfo),
                "system": system_of(session),
            }
            named = Named[TemporaryDatabase](
                f"database {name}", before, lambda made: {"oid": made.oid}
            )
            make = partial(self._create, session, name, template)
            return self.table.acquire(pid, make, named=named)

    def close(self, pid: int, thing: AdvisoryLock | TemporaryDatabase) -> None:
        """Give one back before the end. Raises NotOwnedError, and BusyResourceError."""
        self.table.give_back(pid, thing)

    # -- inside --------------------------------------------------------------

    def _lock(self, key: int | str, timeout: float) -> AdvisoryLock:
        session = connect(self._conninfo, application_name="probate lock")
        number = "%s::int8" if isinstance(key, int) else "hashtextextended(%s, 0)"
        try:
            if timeout:
                # Its unit is a millisecond, and 0 is for ever.
                wait = f"{max(1, round(timeout * 1000))}ms"
                session.execute("SELECT set_config('lock_timeout', %s, false)", [wait])
                session.execute(f"SELECT pg_advisory_lock({number})".encode(), [key])
                is_ours = True
            else:
                query = f"SELECT pg_try_advisory_lock({number})".encode()
                [is_ours] = session.execute(query, [key]).fetchone() or [False]
        except psycopg.errors.LockNotAvailable:
            is_ours = False
        except BaseException:
            session.close()
            raise
        if not is_ours:
            session.close()
            raise TimeoutError(f"another session has the advisory lock {key!r}")
        return AdvisoryLock(key, session)

    def _create(self, session: Session, name: str, template: str) -> TemporaryDatabase:
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        try:
            session.execute(query.format(sql.Identifier(name), sql.Identifier(template)))
            oid = oid_of(session, name)
        except BaseException as error:
            if isinstance(error, psycopg.Error) and session.closed:
                raise UnsettledResourceError(
                    f"the connection was lost while database {name} was made; if it was, a sweep "
                    "drops it when this process has ended"
                ) from error
            with suppress(psycopg.Error):
                drop(session, name, None)
            raise
        # 0 is no database's: somebody has dropped it at once.
        return TemporaryDatabase(name, oid or 0, make_conninfo(self._conninfo, dbname=name))

    def _release(self, thing: AdvisoryLock | TemporaryDatabase) -> Outcome:
        if isinstance(thing, AdvisoryLock):
            return _unlock(thing)
        try:
            with closing(connect(self._conninfo)) as session:
                return drop(session, thing.name, thing.oid)
        except psycopg.OperationalError as error:
            raise BusyResourceError(f"its server cannot be asked: {error}") from error


def _unlock(lock: AdvisoryLock) -> Outcome:
    if lock.session.closed:
        return Outcome.ALREADY_GONE
    with closing(lock.session) as session:
        try:
            # The end of the session would do, but is not waited for.
            session.execute("SELECT pg_advisory_unlock_all()")
        except psycopg.OperationalError:
            # The server has ended it, and so the lock.
            return Outcome.ALREADY_GONE
    return Outcome.RELEASED
