"""The threads that fork for this host, and what of the calling thread they hand on.

A child is born with what the thread wears that forks it. So that no other child is, nor any thread
of this host, children are forked by a thread that does nothing else: marked from just before the
fork until just after it. It is parked for as long as the host lives, since a child with a
parent-death signal gets that when the thread ends that has forked it (PR_SET_PDEATHSIG, prctl(2)),
and since `children` of its own tid (proc(5)) tell whom it has forked itself from orphans, which
come to the main thread.
"""

from __future__ import annotations

import _queue
import _thread
import contextlib
import gc
import operator
import os
import re
import sys
import threading
from itertools import starmap
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final

from probate import forget_in_forked_child
from probate.system import Elsewhere, read_proc
from probate_processes.threadmarks import (
    ALL_SIGNALS,
    SchedAttr,
    ThreadMarks,
    block_all_signals,
    call_of_blocking,
    io_priority,
    name_thread,
    shares_files,
    signal_mask,
    timer_slack,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate_processes.threadmarks import Call, SignalMask, Worn

T = TypeVar("T")

#: As the kernel has it, for whoever looks at the threads of a host.
THREAD_NAME: Final = b"probate-launch"

#: Threads that a host keeps at most. It takes one more for each set of what threads hand on.
_MOST: Final = 4

#: What of /proc/TID/status (proc(5)) says what a child is born with: ids, groups, capabilities,
#: NoNewPrivs, Seccomp, what may be speculated on, and Mems_allowed.
_HANDED_ON: Final = (
    rb"\nUid:.*\nGid:.*|\nGroups:.*|\nCapInh:(?:.*\n)*?(?=Cpus_allowed)|\nMems_allowed:.*"
)
_NAMESPACES: Final = (
    "cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "uts",
)  # fmt: skip

# gevent and the like replace the usual name; a thread that is none would mark its loop's.
start_new_thread: Final[Callable[..., int]] = getattr(
    _thread, "start_new", _thread.start_new_thread
)


def _handed_on(tid: int) -> tuple[object, ...]:
    """Read what a thread of this host hands on to a child, but for its CPUs and signal mask."""
    folder = f"/proc/{tid}"
    status = re.findall(_HANDED_ON, read_proc(f"{folder}/status"))
    try:
        attr = SchedAttr.of(tid)
        scheduled = (attr.policy, attr.flags, attr.nice, attr.priority, attr.runtime)
    except OSError:
        scheduled = (os.sched_getscheduler(tid), 0, os.getpriority(os.PRIO_PROCESS, tid), 0, 0)
    cgroups = read_proc(f"{folder}/cgroup")
    return (*status, *scheduled, io_priority(tid), cgroups, *_namespaces(folder))


def _namespaces(folder: str) -> list[str]:
    found = []
    for name in _NAMESPACES:
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"{folder}/ns/{name}"))
    return found


@final
class Caller(NamedTuple):
    """Names a calling thread, and what of it is handed on each time: its CPUs and signal mask."""

    tid: int
    slack: int
    cpus: set[int]
    blocked: SignalMask

    @classmethod
    def here(cls) -> Caller:
        """Look at this thread; no file is opened for it, which an exception would leave open."""
        cpus = os.sched_getaffinity(0)
        return cls(threading.get_native_id(), timer_slack(), cpus, signal_mask())


@final
class Launcher:
    """Forks on one parked thread, which hands on what the thread hands on that has made it."""

    def __init__(self) -> None:
        self.tid = 0
        self.hands_on: tuple[object, ...] = ()
        #: Whether children can be told by what the thread wears.
        self.is_of_use = False
        self._slack = 0
        self._calls: _queue.SimpleQueue[Callable[[], None]] = _queue.SimpleQueue()
        self._ident = 0
        ready: _queue.SimpleQueue[None] = _queue.SimpleQueue()
        start_new_thread(self._serve, (ready,))
        ready.get()

    def call(self, function: Callable[[], T]) -> T:
        """Make a call on the thread, where no signal handler runs, and none can be in its way.

        Raises what it raises, or what falls in here meanwhile; but not before it is over.
        """
        if _thread.get_ident() == self._ident:
            # A finalizer that spawns, as it was called there.
            return function()
        call = Elsewhere(function, self._calls.put)
        try:
            return call.result()
        finally:
            interrupt, call.interrupt = call.interrupt, None
            try:
                if interrupt is not None:
                    raise interrupt
            finally:
                # Its traceback has this frame, which must not keep what its callers hold.
                del interrupt

    def fork(self, fork: Call, os_pids: list[int], worn: Worn, caller: Caller) -> None:
        """Extend `os_pids` by what `fork` returns, which forks, marked, on this very thread."""
        if os.sched_getaffinity(0) != caller.cpus:
            os.sched_setaffinity(0, caller.cpus)
        on, off = self.marks.calls(worn)
        if sys.version_info < (3, 12) and gc.isenabled():
            # Later ones collect between two bytecodes only.
            on.append((gc.disable,))
            off.append((gc.enable,))
        off.append(call_of_blocking(ALL_SIGNALS))
        calls = [*on, call_of_blocking(caller.blocked), fork, *off]
        # All in one step, of C: neither a finalizer nor another thread's code runs between them,
        # and whatever these would start is not marked.
        results: list[int] = []
        try:
            results.extend(starmap(operator.call, calls))
        except BaseException:
            results.extend(starmap(operator.call, off))
            raise
        os_pids.append(results[len(on) + 1])

    def serves(self, caller: Caller) -> bool:
        """Whether a thread hands on the same."""
        return (
            self.hands_on == _handed_on(caller.tid)
            and self._slack == caller.slack
            and shares_files(self.tid, caller.tid)
        )

    def look_again(self) -> None:
        """Read anew what the thread hands on: some of it may be changed for a whole process."""
        self.hands_on = _handed_on(self.tid)

    def _serve(self, ready: _queue.SimpleQueue[None]) -> None:
        try:
            # It takes no signal that another thread waits for (sigwait(3)).
            block_all_signals()
            self.tid = threading.get_native_id()
            self._ident = _thread.get_ident()
            name_thread(THREAD_NAME)
            self._slack = timer_slack()
            self.look_again()
            self.marks = marks = ThreadMarks()
            self.is_of_use = bool(marks)
        finally:
            ready.put(None)
        while True:
            call = self._calls.get()
            call()
            del call


@final
class Launchers:
    """Keeps the launchers of this host: one, unless its threads hand on different things."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._all: list[Launcher] = []
        forget_in_forked_child(self)

    def first(self) -> Launcher | None:
        """Return the one that serves most threads; None where the kernel keeps no marks."""
        with self._lock:
            if not self._all:
                self._make()
            return self._all[0] if self._all and self._all[0].is_of_use else None

    def find(self, caller: Caller) -> Launcher | None:
        """Return the launcher for a calling thread; None if that has to fork by itself.

        That is so where the kernel keeps no marks; and where it hands on what a parked thread is
        not to keep for ever, such as namespaces of its own.
        """
        first = self.first()
        if first is None:
            return None
        found, may_be_made = first.call(lambda: self._match(caller))
        if found is None and may_be_made:
            with self._lock:
                found = self._make() if len(self._all) < _MOST else None
        return found if found is not None and found.is_of_use else None

    def _match(self, caller: Caller) -> tuple[Launcher | None, bool]:
        """Find one that serves a thread; or tell whether the thread may make one."""
        for look_again in (False, True):
            for each in list(self._all):
                if look_again:
                    each.look_again()
                if each.serves(caller):
                    return each, False
        return None, caller.tid == os.getpid() or _is_like_the_main_thread(caller.tid)

    def _make(self) -> Launcher | None:
        try:
            made = Launcher()
        except RuntimeError:
            # No thread can be started: in other namespaces than the rest (clone(2)), or at all.
            return None
        self._all.append(made)
        return made

    def marks(self) -> ThreadMarks | None:
        """Which numbers processes can be marked by, from outside as well; None if by none."""
        return next((each.marks for each in self._all if each.is_of_use), None)

    def tids(self) -> list[int]:
        """List the threads, whose own children are no orphans."""
        return [each.tid for each in self._all]

    def forget_parent(self) -> None:
        """Have no threads, in a forked child."""
        self._lock = threading.RLock()
        self._all = []


def _is_like_the_main_thread(tid: int) -> bool:
    """Whether a thread is in the namespaces of the main one, and shares its files."""
    main = os.getpid()
    namespaces = _namespaces(f"/proc/{tid}")
    return namespaces == _namespaces(f"/proc/{main}") and shares_files(tid, main)


#: The launchers of this interpreter, shared by all managers: threads are few.
launchers: Final = Launchers()
