"""Functions that raise no audit event, wrapped while leaks are looked for: what they made, where.

Each is wrapped where it is looked up when it is called, in its module or class, and put back at the
end of the session unless somebody else has wrapped it since.
"""

from __future__ import annotations

import asyncio.runners
import functools
import importlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, final

from probate.testing.held import sysv_ids
from probate.testing.sites import Site
from probate.testing.traced import Trace, recording

if TYPE_CHECKING:
    from collections.abc import Callable

#: Functions of module os that return one descriptor or several.
_DESCRIPTORS: Final = (
    "dup", "eventfd", "memfd_create", "openpty", "pidfd_open", "pipe", "pipe2", "posix_openpt",
)  # fmt: skip

_SHM: Final = "/dev/shm/"  # noqa: S108  where glibc has them (shm_overview(7))


@final
class WrappedFunctions:
    """Wraps on `install`, and puts back on `restore`."""

    def __init__(self, on_cancel_all: Callable[[Any], None]) -> None:
        #: Called with an event loop whose runner is about to cancel all its tasks.
        self._on_cancel_all = on_cancel_all
        self._done: list[tuple[Any, str, Any, Any]] = []

    def install(self) -> None:
        """Wrap all of them that there are."""
        for name in _DESCRIPTORS:
            self._wrap(os, name, _noting_descriptors)
        self._wrap(threading.Thread, "start", _noting_thread)
        self._wrap(asyncio.runners, "_cancel_all_tasks", self._telling_of_loop)
        if (shm := _module("_posixshmem")) is not None:
            self._wrap(shm, "shm_open", _noting_shm)
        if (posix := _module("posix_ipc")) is not None:
            for name, of in (
                ("SharedMemory", _posix_memory),
                ("Semaphore", _posix_semaphore),
                ("MessageQueue", _posix_queue),
            ):
                self._wrap(posix, name, functools.partial(_noting_instances, of))
        if (sysv := _module("sysv_ipc")) is not None:
            for name, which in (
                ("SharedMemory", "shm"),
                ("Semaphore", "sem"),
                ("MessageQueue", "msg"),
            ):
                self._wrap(sysv, name, functools.partial(_noting_sysv, which))

    def restore(self) -> None:
        """Put back what was there."""
        while self._done:
            owner, name, original, ours = self._done.pop()
            if vars(owner).get(name) is ours:
                setattr(owner, name, original)

    def _wrap(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        original = vars(owner).get(name)
        if original is not None:
            ours = wrap(original)
            setattr(owner, name, ours)
            self._done.append((owner, name, original, ours))

    def _telling_of_loop(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(original)
        def cancel_all(loop: Any) -> None:
            self._on_cancel_all(loop)
            original(loop)

        return cancel_all


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _noting_descriptors(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def returning_descriptors(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        made = original(*args, **kwargs)
        if (trace := recording()) is not None:
            site = Site.here()
            for fd in (made,) if isinstance(made, int) else made:
                trace.numbers[fd] = site
        return made

    return returning_descriptors


def _noting_thread(original: Callable[[threading.Thread], None]) -> Any:
    @functools.wraps(original)
    def start(self: threading.Thread) -> None:
        __tracebackhide__ = True
        if (trace := recording()) is not None:
            trace.threads.append((weakref.ref(self), Site.here()))
        original(self)

    return start


def _noting_shm(original: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(original)
    def shm_open(path: str, flags: int, mode: int = 0o777) -> int:
        __tracebackhide__ = True
        if (trace := recording()) is not None and flags & os.O_CREAT:
            trace.path("memory", "shared memory", _SHM + path.lstrip("/"))
        fd = original(path, flags, mode)
        if trace is not None:
            trace.numbers[fd] = Site.here()
        return fd

    return shm_open


def _noting_instances(describe: Callable[[Any, str], Any], original: Any) -> type:
    """Make a class in the place of one of posix_ipc's, which notes what it creates."""

    def init(self: Any, name: str | None, flags: int = 0, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        trace = recording() if flags & os.O_CREAT else None
        was_there = trace is not None and name is not None and describe(original, name)[2]()
        original.__init__(self, name, flags, *args, **kwargs)
        if trace is not None:
            kind, what, exists = describe(original, self.name)
            trace.name(kind, what, self.name, exists, was_there=was_there)

    return _class_like(original, init)


class _StandIn(type):
    """The class of classes that stand in for others, whose instances count as theirs."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


def _class_like(original: type, init: Callable[..., None]) -> type:
    names = {"__init__": init, "__module__": original.__module__, "__doc__": original.__doc__}
    made = _StandIn(original.__name__, (original,), {**names, "__slots__": ()})
    made.__qualname__ = original.__qualname__
    return made


def _posix_memory(_: type, name: str) -> tuple[str, str, Callable[[], bool]]:
    return "memory", "shared memory", lambda: os.path.lexists(_SHM + name.lstrip("/"))


def _posix_semaphore(_: type, name: str) -> tuple[str, str, Callable[[], bool]]:
    # As sem_overview(7) has it.
    return "ipc", "semaphore", lambda: os.path.lexists(f"{_SHM}sem.{name.lstrip('/')}")


def _posix_queue(original: Any, name: str) -> tuple[str, str, Callable[[], bool]]:
    def exists() -> bool:
        # Its file system need not be mounted (mq_overview(7)), so it is opened, and not made.
        try:
            original(name, read=False, write=True).close()
        except Exception as error:
            return type(error).__name__ != "ExistentialError"
        return True

    return "ipc", "message queue", exists


def _noting_sysv(which: str, original: Any) -> type:
    """Make a class in the place of one of sysv_ipc's, which notes what it creates."""

    def init(self: Any, key: int | None, flags: int = 0, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        # IPC_CREAT is another number than O_CREAT (ipc.h).
        trace = recording() if key is None or flags & 0o1000 else None
        before = sysv_ids(which) if trace is not None else frozenset()
        original.__init__(self, key, flags, *args, **kwargs)
        if trace is not None:
            _note_sysv(trace, which, self.id, was_there=self.id in before)

    return _class_like(original, init)


def _note_sysv(trace: Trace, which: str, id_: int, *, was_there: bool) -> None:
    if which == "shm":
        # Whose it is, and whether it is there, the kernel says.
        trace.segments[id_] = Site.here()
    else:
        what = "System V semaphore" if which == "sem" else "System V message queue"
        exists = functools.partial(_has_sysv, which, id_)
        trace.name("ipc", what, f"id {id_}", exists, was_there=was_there)


def _has_sysv(which: str, id_: int) -> bool:
    return id_ in sysv_ids(which)
