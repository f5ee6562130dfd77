"""What a test acquires, with the place where it does so: by audit events, and by wrapped functions.

The kernel says what is left, but of a name in /dev/shm, a semaphore, a message queue or a folder
not who made it: a look at the machine before and after would blame whoever else runs tests here. So
names are those that were seen being made, by this interpreter and while a test ran, and the kernel
is asked only whether they are still there. An audit hook (PEP 578) sees most of it, whoever calls:
`tempfile.mkdtemp` and `mkstemp`, `open`, `os.mkdir`, `socket.bind`; wrapped.py adds what raises no
event. Of a segment of System V the kernel keeps the creator, and held.py asks for it.

What a forked or started child makes by name is not seen here. An audit hook cannot be taken back,
so there is one for all sessions of this process, and it does nothing between tests.
"""

from __future__ import annotations

import os
import sys
import tempfile
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

from probate.testing.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How many of a sort are remembered, of a test that acquires more: the latest ones.
_MOST: Final = 10_000

_PAGE: Final = os.sysconf("SC_PAGESIZE")


@final
class Name(NamedTuple):
    """Something that was made by name."""

    #: The kind of Probate's that would own it.
    kind: str
    #: What it is, to be read.
    what: str
    name: str
    #: Says whether it is there still; raises OSError if nobody knows.
    exists: Callable[[], bool]
    site: Site


#: A weak reference, a path or a command line, and where it was noted.
_Noted: TypeAlias = tuple[Any, Site]


def _remembering() -> deque[_Noted]:
    return deque(maxlen=_MOST)


@final
@dataclass(slots=True)
class Trace:
    """What has been acquired since the trace was made, each with its site."""

    sockets: deque[_Noted] = field(default_factory=_remembering)
    threads: deque[_Noted] = field(default_factory=_remembering)
    #: Paths that were opened, as they were given.
    opened: deque[_Noted] = field(default_factory=_remembering)
    #: Descriptors that a function returned.
    numbers: dict[int, Site] = field(default_factory=dict)
    #: Lengths of maps, in whole pages.
    maps: dict[int, Site] = field(default_factory=dict)
    #: Command lines, or None, of what was started.
    started: deque[_Noted] = field(default_factory=_remembering)
    segments: dict[int, Site] = field(default_factory=dict)
    names: dict[tuple[str, str], Name] = field(default_factory=dict)
    #: Those that were to be made, and were there already.
    found: dict[tuple[str, str], Name] = field(default_factory=dict)

    def name(
        self, kind: str, what: str, name: str, exists: Callable[[], bool], *, was_there: bool
    ) -> None:
        """Note that something of this name is made, just before or after, unless it was there."""
        names = self.found if was_there else self.names
        if len(names) < _MOST:
            names[what, name] = Name(kind, what, name, exists, Site.here())

    def path(self, kind: str, what: str, path: str) -> None:
        """Note a path that is about to be made."""
        path = str(Path(path).absolute())
        is_there = partial(os.path.lexists, path)
        self.name(kind, what, path, is_there, was_there=is_there())

    def of_socket(self, fd: int) -> Site | None:
        """Return where the socket behind a descriptor was made."""
        for ref, site in reversed(self.sockets):
            sock = ref()
            if sock is not None and sock.fileno() == fd:
                return site
        return self.numbers.get(fd)

    def of_file(self, fd: int, name: str) -> Site | None:
        """Return where a descriptor was opened: by its number, or by the path of the file."""
        if (site := self.numbers.get(fd)) is not None:
            return site
        for path, site in reversed(self.opened):
            # A path may be that of a link, or have been so.
            if isinstance(path, str | bytes) and os.path.realpath(os.fsdecode(path)) == name:
                return site
        return None

    def of_map(self, length: int) -> Site | None:
        """Return where a map of this length was made last."""
        return self.maps.get(length)

    def of_thread(self, tid: int) -> Site | None:
        """Return where a thread was started."""
        for ref, site in reversed(self.threads):
            if getattr(ref(), "native_id", None) == tid:
                return site
        return None

    def of_child(self, argv: list[str], own: list[str]) -> Site | None:
        """Return where a child was started, by its command line; a forked one has our `own`.

        One that has ended has none any more.
        """
        if not argv and len(self.started) == 1:
            return self.started[0][1]
        for given, site in reversed(self.started):
            if argv == (own if given is None else list(map(os.fsdecode, given))):
                return site
        return None


class _Current:
    """The trace of the test that runs, in this process and not in its forked children."""

    trace: Trace | None = None
    is_hooked = False


def recording() -> Trace | None:
    """Return the trace of the test that runs, if there is one."""
    return _Current.trace


def record(trace: Trace | None) -> None:
    """Have what is acquired from now on noted in this trace, or nowhere."""
    if not _Current.is_hooked:
        _Current.is_hooked = True
        sys.addaudithook(_hook)
        os.register_at_fork(after_in_child=lambda: record(None))
    _Current.trace = trace


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if (trace := _Current.trace) is not None and (note := _EVENTS.get(event)) is not None:
        # Its exception would be that of whoever acquires.
        with suppress(Exception):
            note(trace, *arguments)


def _socket(trace: Trace, sock: Any, *_: object) -> None:
    trace.sockets.append((weakref.ref(sock), Site.here()))


def _open(trace: Trace, path: Any, _: str | None, flags: int) -> None:
    site = Site.here()
    trace.opened.append((path, site))
    if flags & os.O_CREAT and isinstance(path, str) and path.startswith("/dev/shm/"):  # noqa: S108
        trace.path("memory", "shared memory", path)


def _map(trace: Trace, _: int, length: int, *__: object) -> None:
    trace.maps[-(-length // _PAGE) * _PAGE] = Site.here()


def _popen(trace: Trace, _: str, argv: Any, *__: object) -> None:
    argv = [argv] if isinstance(argv, str | bytes | os.PathLike) else list(argv)
    trace.started.append((argv, Site.here()))


def _forked(trace: Trace, *_: object) -> None:
    trace.started.append((None, Site.here()))


def _temporary_folder(trace: Trace, path: Any) -> None:
    trace.path("files", "temporary folder", os.fsdecode(path))


def _temporary_file(trace: Trace, path: Any) -> None:
    trace.path("files", "temporary file", os.fsdecode(path))


def _mkdir(trace: Trace, path: Any, _: int, folder: int) -> None:
    """A folder is a temporary one if it is made where those are."""
    made = Path(os.fsdecode(path)).absolute()
    if folder == -1 and str(made.parent) == tempfile.gettempdir():
        trace.path("files", "temporary folder", str(made))


def _bind(trace: Trace, _: object, address: Any) -> None:
    if isinstance(address, str | bytes) and address and os.fsdecode(address)[0] != "\0":
        trace.path("sockets", "path of a unix socket", os.fsdecode(address))


_EVENTS: Final[dict[str, Callable[..., None]]] = {
    "socket.__new__": _socket,
    "socket.bind": _bind,
    "open": _open,
    "mmap.__new__": _map,
    "subprocess.Popen": _popen,
    "os.fork": _forked,
    "os.forkpty": _forked,
    "os.posix_spawn": lambda trace, _, argv, *__: _popen(trace, "", argv),
    "tempfile.mkdtemp": _temporary_folder,
    "tempfile.mkstemp": _temporary_file,
    "os.mkdir": _mkdir,
}


def remaining(trace: Trace) -> Iterator[Name]:
    """Return those names that are there still; of a folder not also what is in it."""
    left = []
    for each in trace.names.values():
        try:
            if each.exists():
                left.append(each)
        except OSError:
            continue
    folders = [f"{each.name}/" for each in left if each.what == "temporary folder"]
    for each in left:
        if not each.name.startswith(tuple(folders)):
            yield each
