"""Transports of event loops that are owned, or stand above an owned pipe or connection: found."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, final

from probate.system import (
    called_back,
    heap,
    is_transport,
    is_transport_class,
    number_of,
    parts_of,
    running_loop,
)
from probate_ipc.handle import Handle
from probate_ipc.pipetransport import PipeTransport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate import Outcome
    from probate.system import OwnedDescriptor


@final
class TransportHandle(Handle):
    """A transport that somebody owns, with its pipe."""

    def __init__(self, native: Any, adopted: object) -> None:
        self.above: PipeTransport = PipeTransport(native)
        #: What was adopted, kept alive: a stream writer closes its transport when it is collected.
        self.adopted = adopted

    @property
    def identity(self) -> object:
        """The transport."""
        return self.above.native

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """The number of its pipe."""
        return tuple(self.above.descriptors)

    @property
    def closed(self) -> bool:
        """Whether its pipe is closed."""
        return self.above.has_closed()

    def describe(self) -> str:
        """Describe it by its class and its pipe."""
        return repr(self.above)

    def wake_waiters(self) -> None:
        """Nobody is blocked in it: its loop waits for it among others."""

    def close(self) -> None:
        """Close it by force. Raises as `BoundTransport.release`."""
        self.above.release()


def is_pipe_transport(thing: Any) -> bool:
    """Whether it is a transport of a pipe, or of a standard stream of a child process."""
    if not is_transport(thing):
        return False
    # uvloop's of children do not show their pipe.
    names = ("ReadUnixTransport", "WriteUnixTransport")
    return thing.get_extra_info("pipe") is not None or type(thing).__name__ in names


def note_transports(handles: Iterable[Handle]) -> None:
    """Note of each of these which transport an event loop has made of it, if any has.

    A loop makes such a number non-blocking: nothing is looked for where none is. The loop that runs
    here tells what it polls; for the rest there is one look at all objects, some milliseconds.
    """
    numbered = {
        each.number: each
        for each in handles
        if each.above is None and any(_never_blocks(one.number) for one in each.descriptors)
    }
    numbered.pop(-1, None)
    loop = running_loop()
    left = dict(numbered)
    for number in numbered:
        if users := called_back(loop, number):
            del left[number]
            _note(numbered, users)
    if left:
        _note(left, heap.instances(is_transport_class))


def _never_blocks(number: int) -> bool:
    try:
        return not os.get_blocking(number)
    except OSError:
        # It was closed just now, on another thread.
        return False


def _note(numbered: dict[int, Handle], things: Iterable[Any]) -> None:
    for each in things:
        if not is_transport(each):
            continue
        # Of whatever class it is: nothing that it raises is ours to tell.
        with contextlib.suppress(Exception):
            for part in parts_of(each):
                if (handle := numbered.get(number_of(part))) is not None:
                    handle.above = PipeTransport(each)


def give_back_above(handle: Handle, above: PipeTransport) -> Outcome:
    """Close a transport by force, and what it was made of. Raises as `BoundTransport.release`."""
    try:
        return above.release()
    finally:
        if above.has_closed():
            handle.close()
