"""Databases and logs, as the standard library has them."""

from __future__ import annotations

import dbm.dumb
import logging
import logging.handlers
import mailbox
import shelve
import socket
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from adoption.case import Trial, case
from adoption.witness import number, works

if TYPE_CHECKING:
    from adoption.place import Place

DATABASES: Final = "Databases"
LOGGING: Final = "Logging"


@case(DATABASES, "`sqlite3.Connection`")
def sqlite(place: Place) -> Trial:
    connection = sqlite3.connect(place.folder / "data")
    place.callback(connection.close)
    connection.execute("create table t (x)")
    return Trial(connection, (works(lambda: connection.total_changes, "rolled back and closed"),))


@case(DATABASES, "`sqlite3.Connection`, in memory")
def sqlite_in_memory(place: Place) -> Trial:
    connection = sqlite3.connect(":memory:")
    place.callback(connection.close)
    return Trial(connection, (works(lambda: connection.total_changes, "closed"),))


@case(DATABASES, "`sqlite3.Cursor`")
def cursor(place: Place) -> Trial:
    # Functions are called on a thread of the termination's own.
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    place.callback(connection.close)
    made = connection.execute("select 1")
    return Trial(
        made,
        (works(made.fetchone, "closed"),),
        release=made.close,
        say="cursor.close; or adopt the connection",
    )


@case(DATABASES, "`sqlite3.Connection` that is closed")
def closed_sqlite(_: Place) -> Trial:
    connection = sqlite3.connect(":memory:")
    connection.close()
    return Trial(connection)


@case(DATABASES, "`dbm` database")
def dbm_database(place: Place) -> Trial:
    made = dbm.dumb.open(str(place.folder / "data"), "c")
    place.finally_(made.close)
    made[b"key"] = b"value"
    return Trial(
        made, (works(lambda: made[b"key"], "closed"),), release=made.close, say="database.close"
    )


@case(DATABASES, "`shelve` shelf")
def shelf(place: Place) -> Trial:
    # A `dbm.dumb` takes strings and bytes.
    made: Any = shelve.Shelf(dbm.dumb.open(str(place.folder / "data"), "c"))  # type: ignore[arg-type]  # as above
    place.finally_(made.close)
    made["key"] = 1
    return Trial(
        made, (works(lambda: made["key"], "closed"),), release=made.close, say="shelf.close"
    )


@case(DATABASES, "`mailbox.mbox`")
def mbox(place: Place) -> Trial:
    made = mailbox.mbox(place.folder / "mbox")
    place.finally_(made.close)
    return Trial(
        made,
        (number(made._file.fileno()),),  # type: ignore[attr-defined]
        release=made.close,
        say="mailbox.close",
    )


@case(LOGGING, "`logging.FileHandler`")
def file_handler(place: Place) -> Trial:
    return _handler(place, logging.FileHandler(place.folder / "log"))


@case(LOGGING, "`logging.handlers.RotatingFileHandler`")
def rotating_handler(place: Place) -> Trial:
    return _handler(place, logging.handlers.RotatingFileHandler(place.folder / "log"))


def _handler(place: Place, handler: logging.FileHandler) -> Trial:
    place.finally_(handler.close)
    assert handler.stream is not None
    return Trial(
        handler, (number(handler.stream.fileno()),), release=handler.close, say="handler.close"
    )


@case(LOGGING, "`logging.handlers.SocketHandler`")
def socket_handler(place: Place) -> Trial:
    listener = place.enter_context(socket.create_server(("127.0.0.1", 0)))
    handler = logging.handlers.SocketHandler(*listener.getsockname())
    place.finally_(handler.close)
    handler.createSocket()
    assert handler.sock is not None
    return Trial(
        handler, (number(handler.sock.fileno()),), release=handler.close, say="handler.close"
    )


@case(LOGGING, "`logging.Logger`")
def logger(_: Place) -> Trial:
    return Trial(logging.getLogger("adopted"))
