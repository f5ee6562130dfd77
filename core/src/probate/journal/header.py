"""What a store says of its host: who it is, so that it can be told whether that is dead."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from probate.journal.handles import (
    boot_id,
    ipc_namespace,
    mount_namespace,
    network_namespace,
    open_process,
    pid_namespace,
    process_handle,
    seconds_since_boot,
)
from probate.system.osprocess import OsProcess, start_time_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The format of rows and header, and the oldest version that can read it.
VERSION: Final = 1

#: The folder that this package is in.
_HOME: Final = str(Path(__file__).parents[2])


def header_of_this_host() -> dict[str, Any]:
    """Return the header of a store that this OS process makes."""
    return header_of(os.getpid())


def header_of(os_pid: int) -> dict[str, Any]:
    """Return the header of a store that is made for an OS process, from which this was forked.

    Raises ProcessLookupError.
    """
    return {
        "version": VERSION,
        "readable_since": VERSION,
        "boot": boot_id(),
        "pid": os_pid,
        "start": start_time_of(os_pid),
        "handle": _handle_of(os_pid),
        "pid_namespace": pid_namespace(),
        # With it, the kernel kills all in its pid namespace (pid_namespaces(7)).
        "init": _handle_of(1),
        "ipc_namespace": ipc_namespace(),
        "network_namespace": network_namespace(),
        "mount_namespace": mount_namespace(),
        "uid": os.geteuid(),
        "at": seconds_since_boot(),
        "command": sys.orig_argv,
        "executable": sys.executable,
        "path": import_path(),
    }


def import_path() -> list[str]:
    """Return what this OS process can import from, wherever it has gone to since it began.

    The last is where this package is, if only a relative entry says so.
    """
    found: list[str] = []
    # What is no string is nothing to the import system either.
    for entry in (*(each for each in sys.path if isinstance(each, str)), _HOME):
        # A finder knows where its entry was when something was first imported from it.
        path = getattr(sys.path_importer_cache.get(entry), "path", entry)
        # There may be no current folder any more.
        with suppress(FileNotFoundError):
            found.append(os.path.abspath(path))  # noqa: PTH100  not resolved
    return list(dict.fromkeys(found))


def _handle_of(os_pid: int) -> str | None:
    """Return the handle of an OS process; None if that is gone, or this kernel has none."""
    try:
        pidfd = os.pidfd_open(os_pid)
    except OSError:
        return None
    try:
        return process_handle(pidfd)
    finally:
        os.close(pidfd)


def is_process_dead(handle: str | None) -> bool | None:
    """Tell whether the OS process of a handle is dead; None if nobody can know by that."""
    if handle is None:
        return None
    try:
        pidfd = open_process(handle)
    except OSError:
        return None
    if pidfd is None:
        return True
    try:
        # Of one that has ended, and is yet to be waited for, as well (pidfd_open(2)).
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(pidfd)


def is_dead(header: Mapping[str, Any]) -> bool | None:
    """Tell whether a host is dead; None if nobody can know from here."""
    if header["boot"] != boot_id():
        return True
    if (found := is_process_dead(header["handle"])) is not None:
        return found
    if header["pid_namespace"] != pid_namespace():
        return None
    try:
        with OsProcess.open(header["pid"]) as process:
            return process.start_time != header["start"] or process.has_exited()
    except ProcessLookupError:
        return True
