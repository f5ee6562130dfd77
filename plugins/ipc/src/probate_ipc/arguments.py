"""Arguments, checked before anything is acquired."""

from __future__ import annotations

import os
import secrets
from typing import Final

#: Key 0 is IPC_PRIVATE: each call makes a new object, which no one can find by it (msgget(2)).
_KEYS: Final = range(1, 2**31)


def checked_name(name: object) -> str:
    """A POSIX name: a slash and 1 to 250 bytes without another (mq_overview(7)).

    Semaphores have 4 bytes fewer than the 255 of queues (sem_overview(7)). Raises TypeError or
    ValueError.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a POSIX queue or semaphore is a string, got {name!r}")
    length = len(os.fsencode(name))
    if not name.startswith("/") or "/" in name[1:] or "\0" in name or not 2 <= length <= 251:
        raise ValueError(
            f"a POSIX name is a slash and 1 to 250 bytes without another, as '/jobs', got {name!r}"
        )
    return name


def checked_key(key: object) -> int:
    """A SysV key, 1 to 2**31 - 1. Raises TypeError or ValueError."""
    if not isinstance(key, int) or isinstance(key, bool):
        raise TypeError(f"a SysV key is an int, got {key!r}")
    if key not in _KEYS:
        raise ValueError(f"a SysV key is 1 to {_KEYS[-1]}, got {key}; None is any free one")
    return key


def new_name() -> str:
    """A POSIX name that nobody else has."""
    return f"/probate-{secrets.token_hex(8)}"


def other_pid(name: str, pid: int | None, default: int) -> int:
    """The pid of the other end's owner; `default` for None. Raises TypeError."""
    if pid is None:
        return default
    if not isinstance(pid, int) or isinstance(pid, bool):
        raise TypeError(f"{name} is the pid of a process, got {pid!r}")
    return pid


def check_positive(name: str, value: object) -> None:
    """Raise TypeError or ValueError for what is no positive int."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is an int, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} is at least 1, got {value}")


def check_value(value: object, largest: int) -> None:
    """Raise TypeError or ValueError for what is no value of a semaphore."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"the value of a semaphore is an int, got {value!r}")
    if not 0 <= value <= largest:
        raise ValueError(f"the value of a semaphore is 0 to {largest}, got {value}")


def check_mode(mode: object) -> None:
    """Raise TypeError or ValueError for what are no permissions."""
    if not isinstance(mode, int) or isinstance(mode, bool):
        raise TypeError(f"permissions are an int, as 0o600, got {mode!r}")
    if not 0 <= mode <= 0o777:
        raise ValueError(f"permissions are 0 to 0o777, got {mode:#o}")
