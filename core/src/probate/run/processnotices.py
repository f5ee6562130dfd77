"""Notices of the OS processes of a run, in its rows beside those of things."""

from __future__ import annotations

from typing import Final

from probate.journal.handles import pid_namespace
from probate.journal.made import is_there
from probate.journal.notice import Notice
from probate.system.osprocess import start_time_of

#: Calls after which nothing is made that would be looked for.
OF_PROCESSES: Final = ("exec", "setsid")


def notice_of_process(call: str, os_pid: int, name: str = "", tag: int | None = None) -> Notice:
    """Return the notice of an OS process. Raises ProcessLookupError."""
    identity = {
        "pid": os_pid,
        "start": start_time_of(os_pid),
        "tag": tag,
        "pid_namespace": pid_namespace(),
    }
    return Notice(call, os_pid, name, identity, state="confirmed")


def may_be_there(notice: Notice) -> bool:
    """Tell whether what a confirmed notice tells of may be there still."""
    if notice.call not in OF_PROCESSES:
        return is_there(notice)
    try:
        return bool(start_time_of(notice.os_pid) == notice.identity["start"])
    except ProcessLookupError:
        return False
