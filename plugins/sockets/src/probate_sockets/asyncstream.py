"""Sockets, streams and listeners of trio and anyio, which are closed where they run."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Any, Final, final

from probate import BusyResourceError, Outcome
from probate.system import Future, close_at_once, lazy_module, package_of, running_loop, wait_a_turn
from probate_sockets.plain import PlainSocket

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import Callable

    from probate.system import OwnedDescriptor
else:
    asyncio = lazy_module("asyncio")

#: Where these keep what they are made of.
_PARTS: Final = (
    "socket",
    "transport_stream",
    "transport_listener",
    "send_stream",
    "receive_stream",
    "listeners",
)


@final
class AsyncStream:
    """Something with `aclose`, or a socket of trio's; what it is made of, and where it runs."""

    __slots__ = ("_forced", "_loop", "_task", "_token", "asked", "native", "sockets")

    def __init__(self, native: Any) -> None:
        self.native = native
        #: Its sockets, closed by force if it does not close itself.
        self.sockets = [PlainSocket(each) for each in raw_sockets(native)]
        self._token = _trio_token()
        self._loop = None if self._token else running_loop()
        self._task: asyncio.Task[None] | None = None
        self._forced: concurrent.futures.Future[Outcome] | None = None
        self.asked = False

    def __repr__(self) -> str:
        return f"{type(self.native).__name__} {', '.join(map(repr, self.sockets))}"

    @property
    def adopted(self) -> object:
        """What was adopted."""
        return self.native

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """The numbers of its sockets."""
        return tuple(each.descriptor for each in self.sockets)

    def ask_to_close(self) -> concurrent.futures.Future[None] | None:
        """Run its `aclose` where it lives; return a future for when it is closed."""
        done: concurrent.futures.Future[None] = Future()
        if not self._call_there(
            self._start_in_trio if self._token else self._start_in_asyncio, done
        ):
            return None
        self.asked = True
        return done

    def release(self) -> Outcome:
        """Close its sockets by force, where they live: nobody else closes them meanwhile.

        Raises as `PlainSocket.release`, and BusyResourceError until that has been done.
        """
        if self._is_here():
            return self._release_here()
        if self._forced is None:
            forced: concurrent.futures.Future[Outcome] = Future()
            if not self._call_there(self._force, forced):
                # Nothing runs there any more.
                return self._release_here()
            self._forced = forced
        wait_a_turn([self._forced])
        if not self._forced.done():
            raise BusyResourceError("told to close, but what it runs in has not closed it yet")
        forced, self._forced = self._forced, None
        return forced.result()

    def _release_here(self) -> Outcome:
        outcomes = [each.release() for each in self.sockets]
        if self.asked or Outcome.RELEASED in outcomes:
            return Outcome.RELEASED
        return Outcome.ALREADY_GONE

    def _force(self, forced: concurrent.futures.Future[Outcome]) -> None:
        try:
            forced.set_result(self._release_here())
        except Exception as error:
            forced.set_exception(error)

    def _is_here(self) -> bool:
        """Whether it lives on this very thread."""
        return _trio_token() is self._token if self._token else running_loop() is self._loop

    def _call_there(self, function: Callable[[Any], object], argument: object) -> bool:
        """Have a function called where it lives; False if nothing runs there."""
        if self._token is not None:
            try:
                self._token.run_sync_soon(function, argument)
            except RuntimeError:
                # trio.RunFinishedError
                return False
            return True
        if self._loop is None or not self._loop.is_running():
            return False
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, argument)
            return True
        return False

    async def _close(self, done: concurrent.futures.Future[None]) -> None:
        for descriptor in self.descriptors:
            if descriptor.is_ours:
                close_at_once(descriptor.number)
        try:
            # What it leaves open is closed by force, and what that meets is accounted for.
            with contextlib.suppress(Exception):
                if hasattr(self.native, "aclose"):
                    await self.native.aclose()
                else:
                    self.native.close()
        finally:
            if not done.done():
                done.set_result(None)

    def _start_in_trio(self, done: concurrent.futures.Future[None]) -> None:
        sys.modules["trio"].lowlevel.spawn_system_task(self._close, done)

    def _start_in_asyncio(self, done: concurrent.futures.Future[None]) -> None:
        # The loop itself keeps tasks weakly.
        self._task = asyncio.ensure_future(self._close(done))


def is_stream(thing: object) -> bool:
    """Whether it is a socket, stream or listener of trio or anyio, made of sockets."""
    if "trio" not in sys.modules and "anyio" not in sys.modules:
        return False
    return bool(raw_sockets(thing))


def raw_sockets(thing: Any) -> list[socket.socket]:
    """The sockets that something of trio's or anyio's is made of."""
    cls = type(thing)
    package = package_of(cls)
    if package == "trio" and isinstance(sock := getattr(thing, "_sock", None), socket.socket):
        return [sock]
    if not hasattr(cls, "aclose") or package not in {"trio", "anyio"}:
        return []
    found: list[socket.socket] = []
    for name in _PARTS:
        parts = getattr(thing, name, None)
        for part in parts if isinstance(parts, (list, tuple)) else [parts]:
            if isinstance(part, socket.socket):
                found.append(part)
            elif part is not None:
                found += raw_sockets(part)
    if not found and package == "anyio" and hasattr(thing, "extra"):
        attribute = sys.modules["anyio"].abc.SocketAttribute.raw_socket
        raw = thing.extra(attribute, None)  # noqa: S610  not Django
        raw = getattr(raw, "_sock", raw)
        found += [raw] if isinstance(raw, socket.socket) else []
    return list({id(each): each for each in found if each.fileno() != -1}.values())


def _trio_token() -> Any:
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
