"""What there is not enough of here, in words, with the mend."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.errors import ProbateError, describe_error

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How to mend it, by error.
_MENDS: Final = {
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: "raise fs.file-max by sysctl(8)",
    errno.EAGAIN: "raise `ulimit -u`, or pids.max of the cgroup",
    errno.ENOMEM: "free memory, or raise `ulimit -v`",
    errno.ENOSPC: "free room in /dev/shm, and where temporary files are (TMPDIR)",
    errno.EDQUOT: "free room where temporary files are (TMPDIR)",
    errno.EFBIG: "raise `ulimit -f`",
    errno.ENAMETOOLONG: "set TMPDIR to a folder with a shorter path",
    errno.EROFS: "have /dev/shm, and where temporary files are (TMPDIR), writable",
    errno.EACCES: "have /dev/shm, and where temporary files are (TMPDIR), writable",
}

#: What an error that says so itself has among its words.
_MENDING: Final = (" raise ", "ask for less", ": mount ", "; set ")

#: What is so for all who run on this system, and nothing that could be raised.
_UNAVAILABLE: Final = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}

#: Bytes of address space below which the demo's threads may not come to life. Python waits for ever
#: for one that has no memory to say that it has started.
_LEAST: Final = 256 << 20

#: The limits of it, by the option of ulimit (getrlimit(2)).
_ADDRESS_SPACE: Final = {"-v": resource.RLIMIT_AS, "-d": resource.RLIMIT_DATA}

#: As <malloc.h> has it.
_M_ARENA_MAX: Final = -8


@final
class Lack(NamedTuple):
    """Says what could not be had."""

    #: The same for each who lacks it, without names and paths.
    what: str
    #: In full, with the mend.
    text: str
    #: Whether there would be enough of it if somebody raised a limit, or made room.
    is_shortage: bool


def lack_of(error: Exception) -> Lack:
    """Return what an error says that there is not enough of."""
    number = error.errno if isinstance(error, OSError) else None
    what = str(error) if number is None else os.strerror(number)
    return Lack(what, with_mend(error), is_shortage(error))


def is_lack(error: BaseException) -> bool:
    """Whether an error says that there is not enough of something here, or that it is forbidden."""
    if isinstance(error, TimeoutError):
        return False
    return isinstance(error, (OSError, MemoryError, ProbateError)) or _is_of_thread(error)


@contextlib.contextmanager
def limited_path() -> Iterator[None]:
    """Have it count as a lack if a socket has no room for its path: the folder is too deep."""
    try:
        yield
    except ValueError as error:
        raise OSError(errno.ENAMETOOLONG, str(error)) from error


def is_shortage(error: BaseException) -> bool:
    """Whether there would be enough of it if somebody raised a limit, or made room."""
    first = _first_cause(error)
    if isinstance(first, OSError):
        return first.errno not in _UNAVAILABLE
    return not isinstance(first, ProbateError)


def with_mend(error: BaseException, otherwise: str = "") -> str:
    """Describe an error, and how to mend what it lacks, `otherwise` if that is all we know."""
    text, first = describe_error(error), _first_cause(error)
    mend = otherwise
    if isinstance(first, OSError):
        mend = _MENDS.get(first.errno or 0, otherwise)
    elif isinstance(first, MemoryError):
        mend = _MENDS[errno.ENOMEM]
    elif _is_of_thread(first):
        mend = f"{_MENDS[errno.EAGAIN]}, or `ulimit -v`"
    has_its_own = any(word in text for word in _MENDING)
    return text if has_its_own or not mend else f"{text}; {mend}"


def prepare_address_space() -> None:
    """Make do with the address space that there may be.

    Raises MemoryError where it is so little that nothing could be said of it later.
    """
    limits = {option: resource.getrlimit(limit)[0] for option, limit in _ADDRESS_SPACE.items()}
    limited = {option: soft for option, soft in limits.items() if soft != resource.RLIM_INFINITY}
    for option, soft in limited.items():
        if soft < _LEAST:
            raise MemoryError(
                f"{soft >> 10} KiB of address space are too few for its threads: raise "
                f"`ulimit {option}` to {_LEAST >> 10} or more"
            )
    if limited:
        # Else malloc reserves 64 MiB for each thread (mallopt(3)). Not all C libraries have it.
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _first_cause(error: BaseException) -> BaseException:
    """What an error of ours came of, if it tells."""
    while isinstance(error, ProbateError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_of_thread(error: BaseException) -> bool:
    # The interpreter's own error, which has no class of its own.
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)
