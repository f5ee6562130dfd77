"""The fork of one leader: what it is born with, and what is done before anybody else can act."""

from __future__ import annotations

import _posixsubprocess
import contextlib
import fcntl
import operator
import os
import subprocess
import sys
import types
from functools import cache
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final, final

from probate import OsProcess
from probate.system import give_back, set_tag, start_time_of, take, take_all, ticks_since_boot
from probate_processes.limits import set_rlimits
from probate_processes.plain import (
    STREAMS,
    NoPipes,
    entries_of,
    executables,
    is_plain,
    number_of,
)
from probate_processes.procfs import Descent
from probate_processes.threadmarks import mark_from_outside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from probate_processes.cgroup import Cgroup
    from probate_processes.launcher import Caller, Launcher
    from probate_processes.limits import Rlimits
    from probate_processes.marks import Mark

# gevent replaces it, by one that forks in its own ways.
_Popen: Final[type[subprocess.Popen[Any]]] = (
    sys.modules["gevent.monkey"].get_original("subprocess", "Popen")
    if "gevent.monkey" in sys.modules
    else subprocess.Popen
)
_execute_child: Final[types.FunctionType] = vars(_Popen)["_execute_child"]
_fork_exec: Final[Callable[..., int]] = _posixsubprocess.fork_exec
#: Which of its arguments is the environment, or None for that of the interpreter; which one the end
#: of a pipe that a child writes to if it cannot execute its program; and where those begin that ask
#: for nothing but a session of its own.
_ENV, _ERRORS, _REST = 5, 13, 14

#: Above those that a child's streams take the place of.
_FIRST_FREE: Final = 3
#: Bytes that it writes then at most, and many more.
_MOST_OF_AN_ERROR: Final = 1 << 12
#: How a child ends that nobody lets go on.
_ABANDONED: Final = 255


@final
class _Ticks:
    """Tells whether the kernel has the ticks that we count."""

    agree = False


_ticks: Final = _Ticks()


@final
class Birth:
    """Forks one process, and pins, tags, limits and contains it at once.

    With a launcher, on whose thread this runs, it is born with the marks, by vfork(2): its program
    may run by then. One that `is_held` waits until all is done, by fork(2), which takes longer in a
    host with much memory: without a launcher, it is marked from outside.
    """

    def __init__(
        self,
        mark: Mark,
        launcher: Launcher | None,
        caller: Caller,
        cgroup: Cgroup | None,
        rlimits: Rlimits,
        *,
        is_held: bool,
        look_on: Callable[[], object] | None = None,
    ) -> None:
        """`look_on` is called in the child that is held, before it executes its program."""
        self.mark = mark
        self._look_on = look_on
        self._launcher = launcher
        self._caller = caller
        self._cgroup = cgroup
        self._rlimits = rlimits
        self._gate = _Gate() if is_held else None
        self._environment: list[bytes] | None = None
        #: Where its streams are.
        self.popen: subprocess.Popen[Any] | NoPipes = NoPipes()
        #: Descriptors of ours that are closed when its program runs.
        self._opened: list[int] = []
        #: The pid, as soon as there is one.
        self.os_pids: list[int] = []
        #: None if somebody has reaped it by now, or it could not be pinned.
        self.leader: OsProcess | None = None
        #: When it was forked, in ticks since boot, if that is known.
        self._tick: int | None = None
        #: Whether it wore the marks from its first moment on, and so does whatever it forks.
        self.is_marked = False
        #: Whether it was inside of the cgroup from then on.
        self.is_contained = cgroup is None

    def start(
        self,
        argv: Sequence[str | bytes],
        options: Mapping[str, Any],
        environment: list[bytes] | None = None,
    ) -> None:
        """Start a program as subprocess.Popen does. Raises what that raises.

        In `environment`, if that is given: variables as execve(2) takes them.
        """
        self._environment = environment
        if self._gate is not None or not is_plain(options) or not self._start_plain(argv, options):
            self._start_by_subprocess(argv, options)
        self._note_start_time()

    def _start_by_subprocess(self, argv: Sequence[str | bytes], options: Mapping[str, Any]) -> None:
        with contextlib.ExitStack() as opened:
            if self._gate is not None:
                opened.callback(self._gate.close)
                options = {**options, "preexec_fn": self._wait}
            self.popen = object.__new__(_ForkedElsewhere)
            self.popen.__init__(self._fork, argv, start_new_session=True, **options)

    def _start_plain(self, argv: Sequence[str | bytes], options: Mapping[str, Any]) -> bool:
        """Start a program without subprocess; False, before anything is done, if that cannot be."""
        streams = [options.get(name) for name in STREAMS]
        cwd, env = options.get("cwd"), options.get("env")
        sys.audit("subprocess.Popen", argv[0], argv, cwd, env)
        entries = self._environment if env is None else entries_of(env)
        paths = executables(os.fsencode(argv[0]), env)
        rest = _rest_of_arguments()
        opened = self._opened
        try:
            if subprocess.DEVNULL in streams:
                take(opened, os.open, os.devnull, os.O_RDWR)
            numbers = [number_of(stream, opened) for stream in streams]
            take_all(opened, os.pipe)
            out, errors = opened[-2:]
            if errors < _FIRST_FREE:
                # It would be in the way of the streams.
                return False
            self._fork(
                argv, paths, True, (errors,), None if cwd is None else os.fsencode(cwd), entries,
                numbers[0], -1, -1, numbers[1], -1, numbers[2], out, errors, *rest,
            )  # fmt: skip
            give_back(opened, 1)
            if failure := os.read(out, _MOST_OF_AN_ERROR):
                self._raise(failure, argv, options)
        finally:
            give_back(opened, len(opened))
        return True

    def _raise(
        self, failure: bytes, argv: Sequence[str | bytes], options: Mapping[str, Any]
    ) -> None:
        """Raise what subprocess makes of what a child has written that failed; reap the child."""

        def repeat(*arguments: Any) -> int:
            os.write(arguments[_ERRORS], failure)
            return self.os_pids[0]

        _ForkedElsewhere(repeat, argv, start_new_session=True, **options)

    def close_pipes(self) -> None:
        """Close our ends of its streams."""
        for name in ("stdin", "stdout", "stderr"):
            if (pipe := getattr(self.popen, name, None)) is not None:
                # What is still buffered has no reader any more.
                with contextlib.suppress(OSError):
                    pipe.close()

    def _wait(self) -> None:
        """Wait, in the child, until all is done that it is held for."""
        if self._gate is not None:
            self._gate.wait()
        if self._look_on is not None:
            self._look_on()

    def _fork(self, *arguments: Any) -> int:
        if self._environment is not None:
            arguments = (*arguments[:_ENV], self._environment, *arguments[_ENV + 1 :])
        fork = (_fork_exec, *arguments)
        tick = ticks_since_boot()
        if self._launcher is not None:
            self._launcher.fork(fork, self.os_pids, self.mark.worn, self._caller)
        else:
            # In one step: no exception comes between the fork and the note of it.
            self.os_pids.extend(starmap(operator.call, (fork,)))
        # Of a fork within one tick it is known when that was.
        self._tick = tick if ticks_since_boot() == tick else None
        self._settle()
        return self.os_pids[0]

    def _settle(self) -> None:
        os_pid = self.os_pids[0]
        set_tag(os_pid, self.mark.tag)
        if self._launcher is None:
            mark_from_outside(os_pid, self.mark.worn)
        # Somebody who reaps every child, or ignores SIGCHLD, may have left us nothing to pin.
        self.leader = OsProcess(os_pid)
        try:
            self.leader.pin()
        except ProcessLookupError:
            self.leader = None
        set_rlimits(os_pid, self._rlimits)
        if self._launcher is not None:
            self.is_marked = self.mark.is_worn_by(os_pid)
            if not self.is_marked:
                with contextlib.suppress(ProcessLookupError):
                    # It should, unless it has ended, and even then it may: no other will.
                    self._launcher.is_of_use = Descent.of(os_pid).is_zombie
        if self._cgroup is not None and (self._gate is not None or not self.is_marked):
            # At once, since limits of the cgroup are to hold, or nothing else holds it; though it
            # may take the kernel some milliseconds.
            is_made = self._gate is not None or self._cgroup.make()
            self.is_contained = is_made and self._cgroup.add(os_pid)
        if self._gate is not None:
            self._gate.open()

    def _note_start_time(self) -> None:
        """Complete what pins it, now that its program runs.

        The kernel notes the tick of the fork, as we do. It tells of it as well, but while a program
        is executed it makes who asks wait, for as long as that gets no processor: so it is asked
        until it has once said the same.
        """
        if self.leader is None:
            return
        if self._tick is not None and _ticks.agree:
            self.leader.start_time = self._tick
        else:
            with contextlib.suppress(ProcessLookupError):
                self.leader.start_time = start_time_of(self.leader.os_pid)
                if self._tick is not None:
                    _ticks.agree = self.leader.start_time == self._tick
        if not self.leader.is_there():
            self.leader.close()
            self.leader = None


@final
class _ForkedElsewhere(_Popen):  # type: ignore[misc,valid-type]  # Popen, if not under gevent
    """Has the fork made by a function: all else is done here, as always."""

    def __init__(
        self,
        fork: Callable[..., int],
        argv: Sequence[str | bytes],
        **options: Any,
    ) -> None:
        self._fork = fork
        super().__init__(argv, **options)

    def _execute_child(self, *arguments: Any) -> None:
        names = {**_execute_child.__globals__, "_fork_exec": self._fork}
        types.FunctionType(_execute_child.__code__, names)(self, *arguments)


@cache
def _rest_of_arguments() -> tuple[Any, ...]:
    """Return what subprocess, of whichever version, gives to fork_exec besides."""
    found: list[tuple[Any, ...]] = []

    def fork(*arguments: Any) -> int:
        found.append(arguments[_REST:])
        raise ProcessLookupError

    with contextlib.suppress(ProcessLookupError):
        _ForkedElsewhere(fork, ["/"], start_new_session=True)
    return found[0]


@final
class _Gate:
    """Keeps a forked child from executing its program until it is opened."""

    def __init__(self) -> None:
        ends: list[int] = []
        pipe = os.pipe()
        try:
            for fd in pipe:
                ends.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE))  # noqa: PERF401  all that there are are closed
        except OSError:
            for fd in ends:
                os.close(fd)
            raise
        finally:
            for fd in pipe:
                os.close(fd)
        self._out, self._in = ends

    def wait(self) -> None:
        """Wait, in the child; end it if the gate is closed unopened."""
        os.close(self._in)
        if not os.read(self._out, 1):
            os._exit(_ABANDONED)

    def open(self) -> None:
        """Let the child go on."""
        os.write(self._in, b"\0")

    def close(self) -> None:
        """Close it, in the parent."""
        os.close(self._in)
        os.close(self._out)
