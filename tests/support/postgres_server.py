"""A PostgreSQL server of a test's own, on a unix socket in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that it gets to start, on however busy a machine.
_START: Final = 60.0

#: Who runs it where root runs the tests, since it refuses to be root's.
_NOBODY: Final = 65534

#: Where temporary files are in memory, and how many bytes are to be free there.
_MEMORY: Final = "/dev/shm"
_ROOM: Final = 1 << 30

#: Nothing of it is to outlive the test.
_OPTIONS: Final = (
    "listen_addresses=", "fsync=off", "full_page_writes=off", "synchronous_commit=off",
    "autovacuum=off", "shared_buffers=8MB", "max_connections=40",
)  # fmt: skip


def _find_programs() -> Path | None:
    """The folder of `initdb` and `postgres`, which Debian keeps off the path; None without."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and (on_path := shutil.which("initdb")):
        found = [Path(on_path)]
    folders = [each.parent for each in found if (each.parent / "postgres").exists()]
    return folders[-1] if folders else None


PROGRAMS: Final = _find_programs()

needs_postgres: Final = pytest.mark.skipif(
    PROGRAMS is None, reason="there is no PostgreSQL server (initdb, postgres)"
)


@contextlib.contextmanager
def server(programs: Path) -> Iterator[str]:
    """Run a server until the end of the block; yield how to connect as a user who may not much."""
    who = _NOBODY if os.geteuid() == 0 else None
    others: list[int] | None = None if who is None else []
    # Not in pytest's folder, which only its own user may enter; and the path of a socket is short.
    # In memory, where there is enough: each database is a copy of some megabytes.
    has_room = Path(_MEMORY).is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    place = _MEMORY if has_room else None
    with tempfile.TemporaryDirectory(prefix="probate-pg-", dir=place) as folder:
        if who is not None:
            os.chown(folder, who, who)
        subprocess.run(
            [
                programs / "initdb", "--pgdata", f"{folder}/data", "--username", "postgres",
                "--auth", "trust", "--no-sync", "--no-locale", "--encoding", "UTF8",
            ],
            check=True, capture_output=True, cwd=folder, timeout=_START,
            user=who, group=who, extra_groups=others,
        )  # fmt: skip
        options = [f"-c{each}" for each in (*_OPTIONS, f"unix_socket_directories={folder}")]
        with open(f"{folder}/log", "wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", f"{folder}/data", *options],
                stdout=log, stderr=log, cwd=folder,
                user=who, group=who, extra_groups=others,
            )  # fmt: skip
        try:
            with contextlib.closing(_first_session(folder, process)) as session:
                session.execute("CREATE ROLE tester LOGIN CREATEDB PASSWORD 'secret word'")
            yield f"host={folder} user=tester dbname=postgres password='secret word'"
        finally:
            # "Immediate Shutdown": nothing is written that is thrown away at once.
            process.send_signal(signal.SIGQUIT)
            process.wait(_START)


def _first_session(
    folder: str, process: subprocess.Popen[bytes]
) -> psycopg.Connection[tuple[object, ...]]:
    until = time.monotonic() + _START
    while True:
        try:
            return psycopg.connect(host=folder, user="postgres", autocommit=True)
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(Path(folder, "log").read_text()) from None
            time.sleep(0.05)
