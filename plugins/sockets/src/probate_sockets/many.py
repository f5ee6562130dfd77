"""Many plain sockets closed at once, as each of them alone would be."""

from __future__ import annotations

import os
import socket
import sys
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final

from probate.system import (
    NOWHERE,
    all_sharers_of,
    blocked_in,
    drop_unseen,
    give_up_wakeup,
    number_of,
    polled,
    running_loop,
)
from probate_sockets import blocked, onloop, polling
from probate_sockets.plain import PlainSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from probate.system import Blocked

#: The built-in methods, past what `socket.socket` puts before them: no Python code runs in between.
_descriptor_of: Final[Callable[[socket.socket], int]] = socket.SocketType.fileno
_detach: Final[Callable[[socket.socket], int]] = socket.SocketType.detach
_type_of: Final[Callable[[socket.socket], int]] = socket.SocketType.type.__get__


#: References to a socket that nobody else holds: its entry's two, and three of ours.
_OURS: Final = 5


def close_many(entries: list[Any]) -> None:
    """Close the sockets at the end of a list that nobody else uses; take them off it.

    Datagram sockets only: they have no peer to say good-bye to. The kernel closes descriptors
    that follow each other in one call (close_range(2)). What it leaves, down from the newest that
    is anything but plain, takes more: `PlainSocket.release` does it.
    """
    plain: list[PlainSocket] = entries[_after_last_special(entries) :]
    if len(plain) < 2:
        return
    sockets = [each.native for each in plain]
    descriptors = list(map(_descriptor_of, sockets))
    # Nobody uses what nobody else holds.
    is_held = max(map(sys.getrefcount, sockets)) > _OURS or any(each.loop for each in plain)
    waiting = blocked_in() if is_held else NOWHERE
    if waiting is None:
        return
    blocking = waiting.inside.intersection(descriptors)
    used = in_use(plain, waiting) if is_held else set()
    # Whoever is blocked in one is woken, unless that harms others.
    used.update(all_sharers_of(blocking))
    first = len(plain)
    while first and _is_simple(plain[first - 1], descriptors[first - 1], used):
        first -= 1
    count = len(plain) - first
    if not count:
        return
    give_up_wakeup(each.fileno() for each in sockets[first:] if each.gettimeout() is not None)
    drop_unseen(descriptors[first:])
    detached: list[int] = []
    try:
        # One call, which nothing interrupts: from here on a descriptor is in this list alone, and
        # no thread finds it that was not there before.
        detached.extend(map(_detach, sockets[first:]))
        del entries[-count:]
        if is_held:
            _wake(detached, blocking)
    finally:
        closed: list[None] = []
        try:
            _close_descriptors(detached, closed)
        except BaseException:
            if not closed:
                _close_descriptors(detached, closed)
            raise


def in_use(entries: Sequence[PlainSocket], waiting: Blocked | None) -> set[int]:
    """The numbers of these sockets that anybody polls, serves on, or has made a file of.

    One look for all: what is found is looked at one by one.
    """
    numbers = {each.native.fileno() for each in entries}
    used = set(polled(numbers))
    used.update(number_of(server) for server in polling.serving())
    here = running_loop()
    used.update(
        each.number
        for each in entries
        if getattr(each.native, "_io_refs", 0)
        or ((here or each.loop) and onloop.is_polled_by(each.loops, each.number))
    )
    used |= numbers if waiting is None else waiting.in_poll
    return used & numbers


def _wake(detached: list[int], blocking: frozenset[int]) -> None:
    """Wake whoever is blocked in one; of `blocking` it is known that nobody shares them."""
    late: set[int] = set()
    if (waiting := blocked_in()) is not None:
        late.update(waiting.inside.intersection(detached) - blocking)
    for number in blocking.intersection(detached) | (late - all_sharers_of(late).keys()):
        blocked.shut_down(number)


def _after_last_special(entries: list[Any]) -> int:
    """Where the datagram sockets begin that are at the end of a list."""
    for index in range(len(entries), 0, -1):
        each = entries[index - 1]
        if (
            type(each) is not PlainSocket
            or type(each.native) is not socket.socket
            or each.bound is not None
            or _type_of(each.native) != socket.SOCK_DGRAM
        ):
            return index
    return 0


def _is_simple(entry: PlainSocket, number: int, used: set[int]) -> bool:
    return number not in used and number != -1 and entry.descriptor.is_open


def _close_descriptors(descriptors: list[int], closed: list[None]) -> None:
    """Close them, the newest first, which is the last; those that follow each other in one call.

    In one step, of C, when it is known which are: `closed` is empty until that is done.
    """
    ranges: list[tuple[int, int]] = []
    end = len(descriptors)
    while end:
        first = end - 1
        while first and descriptors[first - 1] == descriptors[first] - 1:
            first -= 1
        ranges.append((descriptors[first], descriptors[end - 1] + 1))
        end = first
    closed.extend(starmap(os.closerange, ranges))
