"""One transport of an event loop on a pipe: what it has yet to write is sent first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from probate.errors import ReleaseError
from probate.system import BoundTransport, loop_of, package_of, running_loop

if TYPE_CHECKING:
    import concurrent.futures

    from probate import Outcome


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
