"""Transports of event loops on pipes and connections: what they have yet to write is sent first."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, final

from probate.errors import ReleaseError
from probate.system import (
    BoundTransport,
    called_back,
    heap,
    is_transport,
    is_transport_class,
    loop_of,
    number_of,
    package_of,
    parts_of,
    running_loop,
)
from probate_ipc.handle import Handle

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Iterable

    from probate import Outcome
    from probate.system import OwnedDescriptor


@final
class PipeTransport(BoundTransport):
    """A transport that writes to a pipe, or reads from one, and the loop that it belongs to."""

    __slots__ = ("_left", "_lost_at_most")

    def __init__(self, native: Any) -> None:
        """Take hold of it. Raises ValueError if it does not tell its event loop."""
        loop = loop_of(native) or running_loop()
        if loop is None:
            raise ValueError(f"it does not tell its event loop: {native!r}")
        super().__init__(native, loop)
        #: Bytes that it had yet to write when that was last looked at.
        self._left = 0
        #: As many may be lost at most, because its reader went away while it was closing.
        self._lost_at_most = 0

    def stop_sending(self) -> concurrent.futures.Future[None] | None:
        """Ask one that writes to close; return a future for when it has.

        One that reads goes on: what is still written to it may come from the same owner.
        """
        try:
            self.native.get_write_buffer_size()
        except (AttributeError, NotImplementedError):
            # It closes by itself when whoever writes to it has ended.
            self.asked = self.asked or not self.has_closed()
            return None
        return self.ask_to_close()

    def close_gently(self) -> None:
        """Close it, on its loop, and note what is lost if its reader goes away meanwhile."""
        if self.unsent():
            self.native.set_protocol(_LossNoted(self, self.native.get_protocol()))
        super().close_gently()

    def note_loss(self, error: Exception | None) -> None:
        """Note what is lost, at the moment that its loop has told its protocol so."""
        if error is not None:
            self._lost_at_most = self._left
        elif not self.is_plain:
            # uvloop's goes on writing until now, also when it is aborted.
            self.lost = self.unsent()

    def _watch(self, closed: concurrent.futures.Future[None], pause: float) -> None:
        # uvloop's has thrown it away by the time that it tells.
        self._left = self.unsent() or self._left
        super()._watch(closed, pause)

    def _close_early(self) -> None:
        """Close now what asyncio, which has stopped polling it, closes at its next turn.

        libuv may poll it until then.
        """
        if package_of(type(self.native)) == "asyncio":
            for each in self.parts:
                each.close()

    def _account(self, outcome: Outcome) -> Outcome:
        if self._lost_at_most:
            raise ReleaseError(
                f"closed, but its reader has gone: up to {self._lost_at_most} bytes written to it "
                "were not sent, and are lost"
            )
        return super()._account(outcome)


class _LossNoted:
    """A transport's protocol, which is told all as before; the end is told to us as well."""

    def __init__(self, transport: PipeTransport, protocol: Any) -> None:
        self._transport = transport
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the protocol. With an error, its transport has thrown away what was left."""
        self._transport.note_loss(error)
        self._protocol.connection_lost(error)


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
