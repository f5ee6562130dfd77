"""Objects of the language, and what holds others: nothing that a kind could know."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import gzip
import os
import signal
import socket
import subprocess
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import psutil

from adoption.case import Trial, case
from adoption.witness import end_of_file, holds, number, process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from adoption.place import Place

CONTEXTS: Final = "Contexts and generators"
PLAIN: Final = "Plain objects"
OWNED: Final = "What is owned already"

#: What to say of a thing that has an owner.
_GIVEN: Final = "nothing: `transfer` makes another process its owner"


def _pair(place: Place) -> tuple[socket.socket, socket.socket]:
    ours, peer = socket.socketpair()
    return place.enter_context(ours), place.enter_context(peer)


@case(CONTEXTS, "`contextlib.ExitStack`")
def exit_stack(place: Place) -> Trial:
    ours, peer = _pair(place)
    made = contextlib.ExitStack()
    made.enter_context(ours)
    return Trial(
        made,
        (number(ours.fileno(), "closed, and all that is in it"), end_of_file(peer)),
        release=made.close,
        say="stack.close",
    )


@case(CONTEXTS, "`contextlib.AsyncExitStack`")
def async_exit_stack(place: Place) -> Trial:
    ours, _ = _pair(place)
    made = contextlib.AsyncExitStack()
    made.enter_context(ours)
    return Trial(
        made,
        (number(ours.fileno(), "closed, and all that is in it"),),
        release=made.aclose,
        say="stack.aclose",
        there=place.loop.call,
    )


@case(CONTEXTS, "`@contextmanager`, entered")
def context_manager(place: Place) -> Trial:
    over: list[bool] = []

    @contextlib.contextmanager
    def scope() -> Iterator[None]:
        yield
        over.append(True)

    made = scope()
    made.__enter__()
    return Trial(
        made,
        (holds(lambda: not over, "left"),),
        release=lambda context: context.__exit__(None, None, None),
        say="a function that leaves it; or enter it in an `ExitStack`",
    )


@case(CONTEXTS, "`@asynccontextmanager`, entered")
def async_context_manager(place: Place) -> Trial:
    over: list[bool] = []

    @contextlib.asynccontextmanager
    async def scope() -> AsyncIterator[None]:
        yield
        over.append(True)

    made = scope()
    place.loop.run(made.__aenter__())

    async def leave(context: Any) -> None:
        await context.__aexit__(None, None, None)

    return Trial(
        made,
        (holds(lambda: not over, "left"),),
        release=leave,
        say="leave, a coroutine function; or enter it in an `AsyncExitStack`",
        there=place.loop.call,
    )


@case(CONTEXTS, "generator")
def generator(_: Place) -> Trial:
    over: list[bool] = []

    def count() -> Iterator[int]:
        try:
            yield 1
        finally:
            over.append(True)

    made = count()
    next(made)
    return Trial(
        made,
        (holds(lambda: not over, "its `finally` has run"),),
        release=made.close,  # type: ignore[attr-defined]
        say="generator.close",
    )


@case(CONTEXTS, "`contextlib.closing`")
def closing(place: Place) -> Trial:
    ours, _ = _pair(place)
    made = contextlib.closing(ours)
    return Trial(
        made,
        (number(ours.fileno()),),
        release=lambda context: context.thing.close(),
        say="a function that closes what is in it; or adopt that",
    )


@case(PLAIN, "`weakref.ref` of a socket")
def reference(place: Place) -> Trial:
    ours, _ = _pair(place)
    return Trial(
        weakref.ref(ours),
        (number(ours.fileno()),),
        release=lambda reference: reference().close(),
        say="a function that closes what it refers to; or adopt that",
    )


@case(PLAIN, "`weakref.proxy` of a socket")
def proxy(place: Place) -> Trial:
    ours, _ = _pair(place)
    return Trial(
        weakref.proxy(ours),
        (number(ours.fileno()),),
        release=lambda proxy: proxy.close(),
        say="proxy.close; or adopt the socket",
    )


@case(PLAIN, "`weakref.finalize`")
def finalizer(place: Place) -> Trial:
    ours, _ = _pair(place)
    made = weakref.finalize(ours, os.getpid)
    return Trial(
        made,
        (holds(lambda: made.alive, "called"),),
        release=lambda finalize: finalize(),
        say="finalizer",
    )


@case(PLAIN, "`unittest.mock.Mock`")
def double(_: Place) -> Trial:
    made = mock.Mock()
    return Trial(
        made,
        (holds(lambda: not made.close.called, "closed"),),
        release=made.close,
        say="double.close",
    )


class Closable:
    """Something of somebody's that can be closed."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


@case(PLAIN, "object of somebody's class with `close`")
def closable(_: Place) -> Trial:
    made = Closable()
    return Trial(
        made, (holds(lambda: not made.closed, "closed"),), release=made.close, say="thing.close"
    )


@case(PLAIN, "list of sockets")
def sockets(place: Place) -> Trial:
    pair = list(_pair(place))

    def close(both: list[socket.socket]) -> None:
        for each in both:
            each.close()

    return Trial(
        pair,
        tuple(number(each.fileno()) for each in pair),
        release=close,
        say="a function that closes each; or adopt each",
    )


@dataclasses.dataclass
class Holder:
    """Something that holds a socket."""

    sock: socket.socket


@case(PLAIN, "dataclass that holds a socket")
def holder(place: Place) -> Trial:
    ours, _ = _pair(place)
    return Trial(
        Holder(ours),
        (number(ours.fileno()),),
        release=lambda holder: holder.sock.close(),
        say="a function that closes what it holds; or adopt that",
    )


def _handler(number: int, frame: object) -> None:
    """Do nothing."""


class Number(enum.IntEnum):
    """A number that is no descriptor."""

    ONE = 1


case(PLAIN, "signal handler")(lambda _: Trial(_handler, say="nothing: use `signals.register`"))
case(PLAIN, "signal number")(lambda _: Trial(signal.SIGTERM))
case(PLAIN, "None")(lambda _: Trial(None))
case(PLAIN, "`object()`")(lambda _: Trial(object()))
case(PLAIN, "string")(lambda _: Trial("/dev/null"))
case(PLAIN, "float")(lambda _: Trial(3.0))
case(PLAIN, "member of an `IntEnum`")(lambda _: Trial(Number.ONE))
case(PLAIN, "function")(lambda _: Trial(_pair))
case(PLAIN, "class, such as `socket.socket` itself")(lambda _: Trial(socket.socket))
case(PLAIN, "module")(lambda _: Trial(socket))
case(PLAIN, "dictionary")(lambda _: Trial({"key": "value"}))
case(PLAIN, "`SimpleNamespace`")(lambda _: Trial(SimpleNamespace(close=print)))
case(PLAIN, "exception")(lambda _: Trial(ValueError("none")))


@case(OWNED, "socket")
def owned_socket(place: Place) -> Trial:
    ours, _ = _pair(place)
    place.manager.create_process("first").adopt(ours)
    return Trial(ours, (number(ours.fileno()),), say=_GIVEN)


@case(OWNED, "writer of a transport")
def owned_writer(place: Place) -> Trial:
    ours, _ = _pair(place)
    ours.setblocking(False)
    _, writer = place.loop.run(asyncio.open_connection(sock=ours))
    place.finally_(place.loop.call, writer.close)
    place.manager.create_process("first").adopt(writer.transport)
    return Trial(writer, (number(writer.get_extra_info("socket").fileno()),), say=_GIVEN)


@case(OWNED, "number of a file object")
def owned_number(place: Place) -> Trial:
    file = place.enter_context(open(place.file()))
    place.manager.create_process("first").adopt(file)
    return Trial(file.fileno(), (number(file.fileno()),), say=_GIVEN)


@case(OWNED, "`gzip.GzipFile` over a file")
def owned_beneath(place: Place) -> Trial:
    file = place.enter_context(open(place.file(), "wb"))
    place.manager.create_process("first").adopt(file)
    return Trial(
        place.enter_context(gzip.GzipFile(fileobj=file, mode="wb")),
        (number(file.fileno()),),
        say="nothing: it is closed before the file, by whose owner's end that is",
    )


@case(OWNED, "OS process, by another object")
def owned_process(place: Place) -> Trial:
    child = subprocess.Popen(["sleep", "1000"])
    place.finally_(child.wait)
    place.finally_(child.kill)
    place.manager.create_process("first").adopt(child)
    return Trial(psutil.Process(child.pid), (process(child.pid),), say=_GIVEN)


@case(OWNED, "thing that is given back by a function")
def owned_by_callback(place: Place) -> Trial:
    made = Closable()
    place.manager.create_process("first").adopt(made, release=made.close)
    return Trial(made, (holds(lambda: not made.closed, "closed"),), say=_GIVEN)
