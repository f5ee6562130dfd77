"""What is left, in a line that a reader can act upon: what it is, where it is from, what to do."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from probate.system.osprocess import read_proc
from probate.testing.sites import is_standard

if TYPE_CHECKING:
    from collections.abc import Collection

    from probate.testing.held import Held, Thing
    from probate.testing.sites import Site
    from probate.testing.traced import Trace

#: What to do about what is left, by kind.
ADVICE: Final = {
    "sockets": "close it (`with`, or a fixture that yields it); for a path: unlink it",
    "files": "close it, or remove it (`with`, `tmp_path`)",
    "mmap": "unmap it: `close()`; for shared memory: `close()`, and `unlink()` by its maker",
    "threads": "have it end, and `join()` it; `shutdown()` of an executor does both",
    "processes": "end it, and `wait()` for it",
    "memory": "`unlink()` or `remove()` it",
    "ipc": "`unlink()` or `remove()` it",
    "tasks": "cancel it, and await it; or make it in a TaskGroup",
    "signals": "put back what `signal.signal` returned, or `pthread_sigmask`",
}

_STATES: Final = {"01": "connected", "0A": "listening"}

#: Characters of a command line that are shown.
_LONGEST: Final = 100


def describe(thing: Thing, before: Held) -> str:
    """Return what a thing is, by what the kernel and the interpreter say of it now."""
    first, *rest = thing.identity
    match thing.kind:
        case "sockets":
            return f"socket, fd {first}{_socket(first)}"
        case "files":
            return f"fd {first}: {rest[0]}"
        case "mmap":
            length, _, name = first.partition(" ")
            return f"shared map of {length} bytes{f': {name}' if name else ''}"
        case "threads":
            return _thread(first)
        case "processes":
            return _process(first)
        case "memory":
            return f"System V shared memory, id {rest[0]}"
        case "tasks":
            return _task(first())
        case _:
            return _disposition(thing, before)


def kind_name(thing: Thing) -> str:
    """Return the part of a description that stays the same when the test is run once more."""
    first, *rest = thing.identity
    match thing.kind:
        case "sockets" | "threads" | "processes" | "memory":
            return ""
        case "files":
            # A folder of the test's own has another name each time.
            return "a path" if rest[0].startswith("/") else rest[0].partition(":[")[0]
        case "tasks":
            return name_of_coroutine(task) if (task := first()) else ""
        case "signals":
            return f"{first} {rest[0]}"
        case _:
            return str(first)


def site_of(thing: Thing, trace: Trace) -> Site | None:
    """Return where a thing was acquired, as far as the trace tells."""
    first, *rest = thing.identity
    match thing.kind:
        case "sockets":
            return trace.of_socket(first)
        case "files":
            return trace.of_file(first, rest[0])
        case "mmap":
            return trace.of_map(int(first.partition(" ")[0]))
        case "threads":
            return trace.of_thread(first)
        case "processes":
            return trace.of_child(_command(first), _command(os.getpid()))
        case "memory":
            return trace.segments.get(rest[0])
    return None


def describe_site(site: Site, test_files: Collection[str]) -> str:
    """Return "test_x.py:12, by lib/pool.py:30": the test's own line, and whose it came to."""
    places = list(site.places())
    if not places:
        return ""
    inner = places[0]
    own = next((place for place in places if place.file in test_files), inner)
    text = f"since {_relative(own.file)}:{own.line}, in {own.function}"
    if inner is not own:
        text += f" (by {_relative(inner.file)}:{inner.line}, in {inner.function})"
    return text


def _relative(file: str) -> str:
    path = Path(file)
    with suppress(ValueError, OSError):
        return str(path.relative_to(Path.cwd()))
    return file


def _socket(fd: int) -> str:
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
        text = f": {sock.family.name.removeprefix('AF_')} {sock.type.name.removeprefix('SOCK_')}"
        if sock.family in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
            text += f" {_address(sock.getsockname())}"
            if sock.type == socket.SOCK_STREAM and sock.getsockopt(
                socket.SOL_SOCKET, socket.SO_ACCEPTCONN
            ):
                return f"{text}, listening"
        with suppress(OSError):
            text += f" to {_address(sock.getpeername())}"
        return text.rstrip()
    return ""


def _address(address: Any) -> str:
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return repr(address) if address else ""


def _thread(tid: int) -> str:
    for thread in threading.enumerate():
        if thread.native_id == tid:
            frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001  documented
            while frame is not None and is_standard(frame.f_code.co_filename):
                frame = frame.f_back
            at = frame and f", now at {_relative(frame.f_code.co_filename)}:{frame.f_lineno}"
            return f"{'daemon ' if thread.daemon else ''}thread {thread.name!r}{at or ''}"
    with suppress(OSError):
        name = os.fsdecode(read_proc(f"/proc/self/task/{tid}/comm").strip())
        return f"thread {name!r}, which Python does not know"
    return "thread"


def _command(pid: int) -> list[str]:
    with suppress(OSError):
        return [os.fsdecode(each) for each in read_proc(f"/proc/{pid}/cmdline").split(b"\0")[:-1]]
    return []


def _process(pid: int) -> str:
    command = " ".join(_command(pid))
    if not command:
        return f"child process {pid}, which has ended and was not waited for"
    return f"child process {pid}: {command[:_LONGEST]}"


def _task(task: Any) -> str:
    if task is None:
        return "task"
    text = f"asyncio task {task.get_name()!r} of {name_of_coroutine(task)}"
    stack = task.get_stack(limit=1)
    if stack:
        text += f", at {_relative(stack[-1].f_code.co_filename)}:{stack[-1].f_lineno}"
    return text


def name_of_coroutine(task: Any) -> str:
    """Return the name of the function whose coroutine a task runs."""
    coroutine = task.get_coro()
    return str(getattr(coroutine, "__qualname__", type(coroutine).__qualname__))


def is_made_by_c(thing: Thing) -> bool:
    """Tell whether a thing is of a sort whose site would be known if Python had made it."""
    return thing.kind == "threads" or (
        thing.kind == "files" and thing.identity[1].startswith(("pipe:", "anon_inode:[eventfd]"))
    )


def is_of_runner(task: Any) -> bool:
    """Tell whether a task is the one in which pytest's plugin of anyio runs tests and fixtures."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and "/anyio/_backends/" in code.co_filename


def _disposition(thing: Thing, before: Held) -> str:
    what, number, *rest = thing.identity
    name = _signal_name(number)
    if what == "handled":
        was, now = before.handlers[number], signal.getsignal(number)
        return f"{name}: its handler was {_handler(was)} and is {_handler(now)}"
    return f"{name} is {'' if rest[0] else 'no longer '}{what}"


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _handler(handler: Any) -> str:
    if handler is None:
        return "one that Python did not install"
    if handler in {0, 1} if isinstance(handler, int) else False:
        return signal.Handlers(handler).name
    code = getattr(handler, "__code__", None) or getattr(
        getattr(handler, "__func__", None), "__code__", None
    )
    if code is None:
        return f"a {type(handler).__qualname__}"
    return f"{code.co_qualname} ({_relative(code.co_filename)}:{code.co_firstlineno})"
