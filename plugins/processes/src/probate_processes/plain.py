"""Programs for which subprocess has nothing to do but the fork: they get no pipe, and no options.

It looks up and makes anew, for each of them, what stays the same from one to the next, and takes as
long for that as the kernel for the fork. Here that is kept, and looked at whether it is the same.
"""

from __future__ import annotations

import functools
import os
import subprocess
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

STREAMS: Final = ("stdin", "stdout", "stderr")
_KNOWN: Final = {*STREAMS, "cwd", "env", "pass_fds"}

_PATH: Final = b"PATH"


@final
class NoPipes:
    """Stands for a subprocess.Popen that has no pipes."""

    stdin: IO[Any] | None = None
    stdout: IO[Any] | None = None
    stderr: IO[Any] | None = None
    returncode: int | None = None


def is_plain(options: Mapping[str, Any]) -> bool:
    """Whether options of subprocess.Popen ask for nothing that it would have to make."""
    return (
        options.keys() <= _KNOWN
        and not options.get("pass_fds")
        and all(_is_plain_stream(options.get(name)) for name in STREAMS)
    )


def _is_plain_stream(stream: object) -> bool:
    return not isinstance(stream, int) or stream >= 0 or stream == subprocess.DEVNULL


def number_of(stream: int | IO[Any] | None, devnull: Sequence[int]) -> int:
    """Return the number of a stream, as fork_exec wants it."""
    if stream is None:
        return -1
    if stream == subprocess.DEVNULL:
        return devnull[0]
    return stream if isinstance(stream, int) else stream.fileno()


@final
class OwnEnvironment:
    """Keeps the environment of this host as execve(2) takes it, until it is another."""

    def __init__(self) -> None:
        self._known: tuple[dict[bytes, bytes], list[bytes]] = {}, []

    def entries(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Return the variables, and the same as entries. Neither is to be changed."""
        # As the kernel has it, which takes less time; taken at once, since others may change it.
        variables = vars(os.environb).get("_data", os.environb).copy()
        if variables != self._known[0]:
            self._known = variables, [b"%b=%b" % each for each in variables.items()]
        return self._known


#: Of this interpreter.
own_environment: Final = OwnEnvironment()


def entries_of(env: Mapping[Any, Any]) -> list[bytes]:
    """Return an environment as execve(2) takes it. Raises ValueError, TypeError."""
    found = []
    for name, value in env.items():
        encoded = os.fsencode(name)
        if b"=" in encoded:
            raise ValueError("illegal environment variable name")
        found.append(encoded + b"=" + os.fsencode(value))
    return found


def executables(program: bytes, env: Mapping[Any, Any] | None) -> tuple[bytes, ...]:
    """Return at which paths a program is looked for, in an environment or in this host's own."""
    if b"/" in program:
        return (program,)
    if env is None:
        path = own_environment.entries()[0].get(_PATH)
        folders = _folders(os.fsencode(os.defpath) if path is None else path)
    else:
        folders = _folders(os.fsencode(os.pathsep.join(os.get_exec_path(env))))
    return tuple([folder + program for folder in folders])


@functools.lru_cache(maxsize=4)
def _folders(path: bytes) -> list[bytes]:
    """Return the folders of a search path, each with a slash, but for the current one."""
    return [os.path.join(each, b"") for each in path.split(b":")]  # noqa: PTH118  as execve takes it
