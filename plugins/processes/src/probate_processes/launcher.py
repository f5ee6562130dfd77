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
import os
import signal
import threading
from typing import TYPE_CHECKING, Final, final

from probate import forget_in_forked_child
from probate.system import read_proc
from probate_processes.threadmarks import (
    SchedAttr,
    ThreadMarks,
    io_priority,
    name_thread,
    shares_files,
    timer_slack,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate_processes.threadmarks import Worn

#: As the kernel has it, for whoever looks at the threads of a host.
THREAD_NAME: Final = b"probate-launch"

#: Threads that a host keeps at most. It takes one more for each set of what threads hand on.
_MOST: Final = 4

#: The lines of /proc/PID/task/TID/status (proc(5)) that say what a child is born with.
_HANDED_ON: Final = (
    b"Uid", b"Gid", b"Groups", b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb", b"NoNewPrivs",
    b"Seccomp", b"Seccomp_filters", b"Mems_allowed",
)  # fmt: skip
_NAMESPACES: Final = (
    "cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "uts",
)  # fmt: skip

# gevent and the like replace the usual name; a thread that is none would mark its loop's.
_start_new_thread: Final[Callable[..., int]] = getattr(
    _thread, "start_new", _thread.start_new_thread
)


def _handed_on(tid: int) -> tuple[object, ...]:
    """Read what a thread of this host hands on to a child, but for its CPUs and signal mask."""
    folder = f"/proc/self/task/{tid}"
    lines = read_proc(f"{folder}/status").splitlines()
    status = [line for line in lines if line.partition(b":")[0] in _HANDED_ON]
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
class _Job:
    """One fork, as the calling thread would make it."""

    def __init__(
        self,
        calls: Iterable[int],
        worn: Worn,
        os_pids: list[int],
        then: Callable[[], None],
    ) -> None:
        #: What forks, when its next element is asked for: the pid.
        self._calls = calls
        self._worn = worn
        #: Where the pid goes.
        self._os_pids = os_pids
        self._then = then
        self._cpus = os.sched_getaffinity(0)
        self._blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._claim = _thread.allocate_lock()
        self._running = _thread.allocate_lock()
        self._running.acquire()
        self._is_over = False
        self._error: BaseException | None = None

    def run(self, marks: ThreadMarks) -> None:
        """Fork on this thread, marked, and as the calling one is scheduled."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            if os.sched_getaffinity(0) != self._cpus:
                os.sched_setaffinity(0, self._cpus)
            if gc.isenabled():
                # So soon, nothing is collected again: no finalizer runs while this thread is
                # marked, and whatever it would start is not.
                gc.collect(0)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
            take_off = marks.put_on(self._worn)
            try:
                # In one step: no exception comes between the fork and the note of it.
                self._os_pids.extend(self._calls)
            finally:
                take_off()
                signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
            self._then()
        except BaseException as error:
            self._error = error
        finally:
            self._is_over = True
            self._running.release()

    def wait(self, submit: Callable[[], None]) -> None:
        """Submit the job, and wait until it is over, whatever falls in; then raise that."""
        is_submitted = False
        interrupt: BaseException | None = None
        # Told by a flag: an exception may fall in just after the lock was acquired.
        while not self._is_over:
            try:
                if not is_submitted:
                    submit()
                    is_submitted = True
                self._running.acquire()
            except BaseException as error:
                interrupt = interrupt or error
        failure = interrupt or self._error
        if failure is not None:
            raise failure


@final
class Launcher:
    """Forks on one parked thread, which hands on what the thread hands on that has made it."""

    def __init__(self, maker: int) -> None:
        self.tid = 0
        self.hands_on = _handed_on(maker)
        #: Whether children can be told by what the thread wears.
        self.is_of_use = False
        self._slack = timer_slack()
        self._jobs: _queue.SimpleQueue[_Job] = _queue.SimpleQueue()
        self._ident = 0
        ready = _thread.allocate_lock()
        ready.acquire()
        _start_new_thread(self._serve, (ready.release,))
        ready.acquire()

    def fork(
        self, calls: Iterable[int], worn: Worn, os_pids: list[int], then: Callable[[], None]
    ) -> None:
        """Have `os_pids` extended by `calls`, which forks, marked; and `then` called.

        Raises what they raise, or what falls in meanwhile; but not before they are over.
        """
        job = _Job(calls, worn, os_pids, then)
        if _thread.get_ident() == self._ident:
            # A finalizer that spawns, as it was called here.
            job.wait(lambda: job.run(self.marks))
        else:
            job.wait(lambda: self._jobs.put(job))

    def serves(self, tid: int) -> bool:
        """Whether a thread, which is the calling one, hands on the same."""
        return (
            self.hands_on == _handed_on(tid)
            and self._slack == timer_slack()
            and shares_files(self.tid, tid)
        )

    def look_again(self) -> None:
        """Read anew what the thread hands on: some of it may be changed for a whole process."""
        self.hands_on = _handed_on(self.tid)

    def _serve(self, is_ready: Callable[[], None]) -> None:
        try:
            # It takes no signal that another thread waits for (sigwait(3)).
            signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
            self.tid = threading.get_native_id()
            self._ident = _thread.get_ident()
            name_thread(THREAD_NAME)
            self.marks = marks = ThreadMarks()
            self.is_of_use = bool(marks)
        finally:
            is_ready()
        while True:
            job = self._jobs.get()
            job.run(marks)
            del job


@final
class Launchers:
    """Keeps the launchers of this host: one, unless its threads hand on different things."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._all: list[Launcher] = []
        forget_in_forked_child(self)

    def find(self) -> Launcher | None:
        """Return the launcher for the calling thread; None if it has to fork by itself.

        That is so where the kernel keeps no marks; and where the thread hands on what a parked
        one is not to keep for ever, such as namespaces of its own.
        """
        with self._lock:
            if self._all and not self._all[0].is_of_use:
                return None
            tid = threading.get_native_id()
            for is_second_look in (False, True):
                for each in self._all:
                    if is_second_look:
                        each.look_again()
                    if each.serves(tid):
                        return each if each.is_of_use else None
            if len(self._all) == _MOST or (
                tid != os.getpid() and not _is_like_the_main_thread(tid)
            ):
                return None
            try:
                made = Launcher(tid)
            except RuntimeError:
                # No thread can be started, in other namespaces than the rest (clone(2)) or at all.
                return None
            self._all.append(made)
            return made if made.is_of_use else None

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
    namespaces = _namespaces(f"/proc/self/task/{tid}")
    return namespaces == _namespaces(f"/proc/self/task/{main}") and shares_files(tid, main)


#: The launchers of this interpreter, shared by all managers: threads are few.
launchers: Final = Launchers()
