"""How a PostgreSQL server is found again, without secrets, and what is asked of it."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from probate import BusyResourceError, Outcome, RefusedResourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from probate import ResourceRecord

#: Seconds that a server gets to answer, unless it is said how many (libpq waits for ever).
_CONNECT_TIMEOUT: Final = 10

#: Seconds for which sessions are waited for whose clients have just hung up; and between looks.
_LINGERING: Final = 0.5
_PAUSE: Final = 0.02

_USERS: Final = """
    SELECT pid, usename, application_name FROM pg_stat_activity WHERE datid = %s ORDER BY pid
"""
_SYSTEM: Final = "SELECT system_identifier::text FROM pg_control_system()"
_IS_BEING_MADE: Final = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
_OID: Final = "SELECT oid::int8 FROM pg_database WHERE datname = %s"


def connect(conninfo: str, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect, each statement a transaction of its own. Raises psycopg.OperationalError."""
    found = _found(conninfo)
    if not found.keys() & {"dbname", "service"}:
        # Not one that is called as the user is, which is libpq's choice.
        options["dbname"] = "postgres"
    timeout = found.get("connect_timeout", _CONNECT_TIMEOUT)
    return psycopg.connect(conninfo, autocommit=True, connect_timeout=timeout, **options)


def address(conninfo: str) -> str:
    """Return how the same server is connected to elsewhere: without passwords, for a journal.

    Of secrets, and of what is for debugging alone, libpq says that they are not to be shown
    (PQconninfoOption.dispchar).
    """
    shown = {each.keyword.decode() for each in pq.Conninfo.get_defaults() if not each.dispchar}
    return make_conninfo(
        **{name: value for name, value in _found(conninfo).items() if name in shown}
    )


def _found(conninfo: str) -> dict[str, Any]:
    """Return what is said of a server, and what this process's environment adds (libpq)."""
    added = {
        each.keyword.decode(): each.val.decode()
        for each in pq.Conninfo.get_defaults()
        if each.val is not None and each.val != each.compiled
    }
    return {**added, **conninfo_to_dict(conninfo)}


def system_of(session: psycopg.Connection[tuple[Any, ...]]) -> str:
    """Return what a cluster of databases was called when it was made (pg_controldata)."""
    return _value(session, _SYSTEM)


def oid_of(session: psycopg.Connection[tuple[Any, ...]], name: str) -> int | None:
    """Return the number of a database; None if there is none of this name."""
    row = session.execute(_OID, [name]).fetchone()
    return None if row is None else int(row[0])


def drop(
    session: psycopg.Connection[tuple[Any, ...]],
    name: str,
    oid: int | None,
    *,
    dry_run: bool = False,
) -> Outcome:
    """Drop the database of this name, and of this number if that is known.

    Never with force. Raises BusyResourceError, which says who uses it; psycopg.Error.
    """
    found = oid_of(session, name)
    if found is None or oid not in (None, found):
        return Outcome.ALREADY_GONE
    if users := _users(session, found):
        raise BusyResourceError(f"still used by {', '.join(users)}")
    if dry_run:
        return Outcome.RELEASED
    try:
        session.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
    except psycopg.errors.InvalidCatalogName:
        return Outcome.ALREADY_GONE
    except psycopg.errors.ObjectInUse as error:
        raise BusyResourceError(_line(error)) from error
    return Outcome.RELEASED


def reclaim(record: ResourceRecord, dry_run: bool) -> Outcome:
    """Drop a database whose owner has died, unless somebody is connected to it."""
    identity: Mapping[str, Any] = record.identity
    name = identity["name"]
    try:
        with closing(connect(identity["server"])) as session:
            if system_of(session) != identity["system"]:
                raise RefusedResourceError("another server answers at its address")
            # Whoever asked for it is dead; whoever makes it is not, and may be at it still.
            if "oid" not in identity and int(_value(session, _IS_BEING_MADE, name)):
                raise BusyResourceError("its server is just making it")
            return drop(session, name, identity.get("oid"), dry_run=dry_run)
    except psycopg.OperationalError as error:
        raise RefusedResourceError(f"its server cannot be asked: {_line(error)}") from error


def _users(session: psycopg.Connection[tuple[Any, ...]], oid: int) -> list[str]:
    """Return who is connected to a database, but for those who go just now."""
    until = time.monotonic() + _LINGERING
    while (rows := session.execute(_USERS, [oid]).fetchall()) and time.monotonic() < until:
        time.sleep(_PAUSE)
    return [f"session {pid} of {user} ({program})" for pid, user, program in rows]


def _value(session: psycopg.Connection[tuple[Any, ...]], query: str, *values: str) -> str:
    """Return the one value that a query has for an answer."""
    [value] = session.execute(query.encode(), values).fetchone() or [""]
    return str(value)


def _line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
