"""Options of subprocess.Popen: which are passed on, and why the others are refused."""

from __future__ import annotations

import codecs
import grp
import pwd
from typing import TYPE_CHECKING, Any, Final

from probate.system import checked_int

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Passed on to Popen as they are.
_PASSED: Final = frozenset(
    {
        "bufsize", "close_fds", "encoding", "errors", "executable", "extra_groups", "group",
        "pipesize", "restore_signals", "text", "umask", "universal_newlines", "user",
    }
)  # fmt: skip

_IS_WINDOWS: Final = "it is for Windows"

#: What else Popen takes, with the values that ask for nothing else than what is done here, and
#: why all others are refused.
_REFUSED: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {
    "shell": ((False,), "a shell is a program like any other: spawn(['sh', '-c', command])"),
    "start_new_session": (
        (True,),
        "each spawned program leads a session of its own, by which its descendants are found",
    ),
    "process_group": (
        (None, 0),
        "each spawned program leads a session, and with it a process group, of its own (setsid(2))",
    ),
    "preexec_fn": (
        (None,),
        (
            "it would run Python in a child of a program with threads, which may block for ever: "
            "use user, group, extra_groups, umask, cwd or limits, or spawn a program that does it "
            "first (prlimit(1), setpriv(1), sh -c '...; exec \"$@\"')"
        ),
    ),
    "creationflags": ((0,), _IS_WINDOWS),
    "startupinfo": ((None,), _IS_WINDOWS),
}


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options for Popen, and return those that it is to be given.

    Raises TypeError for one that is refused, with the reason, or that nobody knows, ValueError for
    a user or group that is not there, LookupError for an unknown encoding.
    """
    for name, value in options.items():
        if name in _PASSED:
            continue
        if name not in _REFUSED:
            raise TypeError(f"spawn() got an unexpected keyword argument {name!r}")
        allowed, reason = _REFUSED[name]
        if not any(value is each or value == each for each in allowed):
            raise TypeError(f"spawn() does not take {name}={value!r}: {reason}")
    passed = {name: value for name, value in options.items() if name in _PASSED}
    # Popen finds these out when its pipes are open, and leaves them so.
    if passed.get("user") is not None:
        passed["user"] = _checked_id("user", passed["user"])
    if passed.get("group") is not None:
        passed["group"] = _checked_id("group", passed["group"])
    if passed.get("extra_groups") is not None:
        passed["extra_groups"] = [_checked_id("group", each) for each in passed["extra_groups"]]
    if (encoding := options.get("encoding")) is not None:
        codecs.lookup(encoding)
    if (errors := options.get("errors")) is not None:
        codecs.lookup_error(errors)
    return passed


def _checked_id(what: str, value: object) -> int:
    """Return the id of a user or group, given by name or id. Raises TypeError or ValueError."""
    if not isinstance(value, str):
        return checked_int(f"a {what}", value, least=0)
    try:
        return pwd.getpwnam(value).pw_uid if what == "user" else grp.getgrnam(value).gr_gid
    except KeyError:
        raise ValueError(f"there is no {what} {value!r} on this machine") from None
