"""Arguments, checked before anything is acquired."""

from __future__ import annotations

import os
from typing import Final

from probate.system import checked_int

#: Key 0 is IPC_PRIVATE: each call makes a new object, which no one can find by it (msgget(2)).
_LARGEST_KEY: Final = 2**31 - 1


def name_or_new(name: str | None) -> str:
    """Check a POSIX name; None is one that nobody else has. Raises TypeError or ValueError."""
    return f"/probate-{os.urandom(8).hex()}" if name is None else checked_name(name)


def checked_name(name: str) -> str:
    """Check a POSIX name: a slash and 1 to 250 bytes without another (mq_overview(7)).

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


def key_or_free(key: int | None) -> int | None:
    """Check a SysV key; None is any free one. Raises TypeError or ValueError."""
    return None if key is None else checked_key(key)


def checked_key(key: int) -> int:
    """Check a SysV key, 1 to 2**31 - 1. Raises TypeError or ValueError."""
    return checked_int("key", key, least=1, most=_LARGEST_KEY)


def checked_mode(mode: int) -> int:
    """Check permissions, as 0o600. Raises TypeError or ValueError."""
    return checked_int("mode", mode, least=0, most=0o777)
