"""Waking a thread that is blocked in a socket."""

from __future__ import annotations

import socket
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def shut_down(number: int) -> None:
    """Shut a socket down by its number, which wakes whoever is blocked in it (shutdown(2)).

    Where nothing is connected the kernel wakes whoever waits, and then complains.
    """
    _shutdown()(number, socket.SHUT_RDWR)


@cache
def _shutdown() -> Callable[[int, int], int]:
    import ctypes

    shutdown: Callable[[int, int], int] = ctypes.CDLL(None).shutdown
    return shutdown
