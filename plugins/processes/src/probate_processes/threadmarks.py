"""Marks that a thread wears, and gives to all that it forks: they outlive exec and a new login.

Three numbers and a flag that the kernel keeps for each thread, and passes on over fork, vfork and
exec whatever becomes of environment, session, user and limits:

slice  `sched_runtime` of sched_setattr(2): a time slice for SCHED_OTHER and SCHED_BATCH, from Linux
       6.12 on. Anybody may read it, of zombies too.
hint   bits 3 to 12 of the I/O priority (ioprio_set(2)), from Linux 6.5 on. Anybody may read it, but
       not of zombies.
slack  the timer slack (PR_SET_TIMERSLACK, prctl(2)); read with CAP_SYS_NICE only (proc(5)).
late   PR_MCE_KILL_LATE, the default anyway (prctl(2)): a flag in /proc/PID/stat.

None needs a right, and none changes what a program sees: a slice is longer by less than 33 us, a
timer more exact by as much, and a hint means nothing to a disk without command duration limits.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Any, Final, NamedTuple, final

from probate.system import read_proc

#: Keeps the interpreter lock: none of these calls waits, and no other code runs between them.
_libc: Final = ctypes.PyDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long,) * 6
_prctl: Final = _libc.prctl
_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)

#: A function of C, and what it is to be called with.
Call = tuple[Any, ...]

SignalMask = ctypes.Array[ctypes.c_char]
#: As large as a sigset_t is (signal(7)).
_new_mask: Final = ctypes.c_char * 128
ALL_SIGNALS: Final[SignalMask] = _new_mask()
_libc.sigfillset(ctypes.byref(ALL_SIGNALS))
_sigmask: Final = _libc.pthread_sigmask
_sigmask.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

#: ioprio_set, ioprio_get, sched_setattr, sched_getattr, kcmp, by machine (asm/unistd.h).
_X86_64: Final = (251, 252, 314, 315, 312)
_GENERIC: Final = (30, 31, 274, 275, 272)
_NUMBERS: Final = {
    "x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC, "loongarch64": _GENERIC,
}  # fmt: skip
_NONE: Final = -1
_ioprio_set, _ioprio_get, _sched_setattr, _sched_getattr, _kcmp = (
    _NUMBERS.get(os.uname().machine, (_NONE,) * 5) if sys.maxsize > 1 << 32 else (_NONE,) * 5
)

_SCHED_OTHER: Final = 0
_SCHED_BATCH: Final = 3
_SCHED_IDLE: Final = 5
_RESET_ON_FORK: Final = 1
#: The kernel's own slices are multiples of this many nanoseconds; those that we give are not.
_KERNELS_SLICES: Final = 50_000
#: How many slices and slacks there are to give.
WIDTH: Final = 32_767

_WHO_PROCESS: Final = 1
_CLASS_SHIFT: Final = 13
_BEST_EFFORT, _IDLE = 2, 3
#: Hints from 1 to 7 mean limits of command duration (linux/ioprio.h).
FIRST_HINT: Final = 8
HINTS: Final = 1016

_SET_TIMERSLACK, _GET_TIMERSLACK = 29, 30
_SLACK: Final = 50_000

_SET_NAME: Final = 15

_MCE_KILL: Final = 33
_MCE_KILL_SET: Final = 1
#: PF_MCE_PROCESS (linux/sched.h).
_LATE_FLAG: Final = 0x80

#: KCMP_FILES and KCMP_FS of kcmp(2).
_FILES, _FS = 2, 3


class SchedAttr(ctypes.Structure):
    """How a thread is scheduled: `struct sched_attr` of sched_setattr(2), as it was at first."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )
    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int

    @classmethod
    def of(cls, tid: int) -> SchedAttr:
        """Read those of a thread, 0 being this one. Raises OSError."""
        attr = cls()
        size = ctypes.sizeof(attr)
        _call(_sched_getattr, tid, ctypes.addressof(attr), size)
        return attr

    def set(self, tid: int, runtime: int) -> None:
        """Have a thread scheduled as before, but with this slice; 0 is the kernel's own."""
        attr = self.with_slice(runtime)
        _call(_sched_setattr, tid, ctypes.addressof(attr))

    def with_slice(self, runtime: int) -> SchedAttr:
        """Return the same, but with this slice."""
        attr = SchedAttr.from_buffer_copy(self)
        attr.size, attr.runtime = ctypes.sizeof(attr), runtime
        attr.flags &= _RESET_ON_FORK
        return attr


#: The same function, for a structure.
_set_attr: Final = _libc["syscall"]
_set_attr.restype = ctypes.c_long
_set_attr.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.POINTER(SchedAttr), ctypes.c_long)


def _call(number: int, first: int, second: int = 0, third: int = 0, fourth: int = 0) -> int:
    result: int = _syscall(number, first, second, third, fourth, 0)
    if result < 0:
        raise _error()
    return result


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def shares_files(tid: int, other: int) -> bool:
    """Whether two threads have one table of descriptors and one working directory (kcmp(2)).

    True as well where the kernel does not tell: whoever unshares them is one in a million.
    """
    return all(_syscall(_kcmp, tid, other, kind, 0, 0) <= 0 for kind in (_FILES, _FS))


def io_priority(tid: int = 0) -> int:
    """Read the I/O priority of a thread; 0 if that cannot be read."""
    raw: int = _syscall(_ioprio_get, _WHO_PROCESS, tid, 0, 0, 0)
    return max(0, raw)


def name_thread(name: bytes) -> None:
    """Name this thread, as /proc/PID/task/TID/comm shows it: 15 bytes at most."""
    buffer = ctypes.create_string_buffer(name)
    _prctl(_SET_NAME, ctypes.addressof(buffer), 0, 0, 0)


def signal_mask() -> SignalMask:
    """Read which signals this thread blocks."""
    mask: SignalMask = _new_mask()
    _sigmask(signal.SIG_BLOCK, None, ctypes.addressof(mask))
    return mask


def call_of_blocking(mask: SignalMask) -> Call:
    """Return what has this thread block these signals, and no others, when it is called."""
    # Not by signal.pthread_sigmask(), which makes an enum of each signal, and a set of them.
    return _sigmask, signal.SIG_SETMASK, mask, None


def block_all_signals() -> None:
    """Have this thread take no signal, which another one may wait for."""
    _sigmask(signal.SIG_SETMASK, ALL_SIGNALS, None)


def _call_of_set(attr: SchedAttr) -> Call:
    # The structure itself, which lives as long as this.
    return _set_attr, _sched_setattr, 0, attr, 0


def _call_of_ioprio(value: int) -> Call:
    return _syscall, _ioprio_set, _WHO_PROCESS, 0, value, 0, 0


def timer_slack() -> int:
    """Read that of this thread, in nanoseconds."""
    slack: int = _prctl(_GET_TIMERSLACK, 0, 0, 0, 0)
    return slack


class Worn(NamedTuple):
    """Marks that a process wears. 0 is none, or one that cannot be read."""

    slice: int
    hint: int
    slack: int

    @classmethod
    def by(cls, os_pid: int) -> Worn:
        """Look at a process, or zombie: at its main thread."""
        return cls(slice_of(os_pid), hint_of(os_pid), slack_of(os_pid))


def slice_of(tid: int) -> int:
    """Read the slice of a thread, if it was given one; else 0."""
    try:
        attr = SchedAttr.of(tid)
    except OSError:
        return 0
    is_given = attr.policy in (_SCHED_OTHER, _SCHED_BATCH) and attr.runtime % _KERNELS_SLICES
    return attr.runtime if is_given else 0


def hint_of(tid: int) -> int:
    """Read the hint of a thread, if it was given one; else 0."""
    hint: int = io_priority(tid) >> 3 & 0x3FF
    return hint if hint >= FIRST_HINT else 0


def slack_of(os_pid: int) -> int:
    """Read by how much the slack of a process differs from the default; 0 if it may not be read."""
    try:
        return _SLACK - int(read_proc(f"/proc/{os_pid}/timerslack_ns"))
    except (OSError, ValueError):
        return 0


def is_late(flags: int) -> bool:
    """Whether flags, as /proc/PID/stat has them, say that a process comes from a tree."""
    return bool(flags & _LATE_FLAG)


@final
class ThreadMarks:
    """Puts marks on the thread that made it, and takes them off; knows which of them hold here.

    A host that itself wears a hint keeps it, and gives slices alone: so the host around it knows
    whose its orphans are as well.
    """

    def __init__(self) -> None:
        #: What slices start from; 0 if they do not hold.
        self.first_slice = 0
        #: The slice to go back to; 0 is the kernel's own.
        self._own_slice = 0
        with contextlib.suppress(OSError):
            self._try_slices()
        self.has_hints = False
        with contextlib.suppress(OSError):
            self._try_hints()
        #: Whether slacks are the mark, since there is no better one, and can be read.
        self.has_slacks = not (self.first_slice or self.has_hints) and _reads_slacks()
        #: Whether the flag tells anything, which it does not if all of this host wears it.
        self.has_late = not is_late(int(_fields_of_this_thread()[6])) and self._wear_late(True)
        self._wear_late(False)

    def __bool__(self) -> bool:
        """Whether processes can be told by any number."""
        return bool(self.first_slice or self.has_hints or self.has_slacks)

    def slice(self, number: int) -> int:
        """Return the slice that has this number; 0 if slices do not hold."""
        if not self.first_slice:
            return 0
        found = self.first_slice + number
        # One that looks like the kernel's own would be none.
        return found if found % _KERNELS_SLICES else found + WIDTH

    def calls(self, marks: Worn) -> tuple[list[Call], list[Call]]:
        """Return what marks this thread when it is called, and what takes the marks off.

        None of it raises: what cannot be put on is not, and a spawn goes on.
        """
        on: list[Call] = []
        off: list[Call] = []
        with contextlib.suppress(OSError):
            attr = SchedAttr.of(0)
            if self.first_slice:
                on.append(_call_of_set(attr.with_slice(marks.slice)))
                off.append(_call_of_set(attr.with_slice(self._own_slice)))
            if self.has_hints:
                raw = io_priority()
                on.append(_call_of_ioprio(_with_hint(marks.hint, raw, attr)))
                off.append(_call_of_ioprio(_without_hint(raw)))
        if self.has_slacks:
            on.append((_prctl, _SET_TIMERSLACK, _SLACK - marks.slack, 0, 0, 0))
            off.append((_prctl, _SET_TIMERSLACK, timer_slack(), 0, 0, 0))
        if self.has_late:
            on.append((_prctl, _MCE_KILL, _MCE_KILL_SET, 0, 0, 0))
            off.append((_prctl, _MCE_KILL, 0, 0, 0, 0))
        return on, off

    def _try_slices(self) -> None:
        attr = SchedAttr.of(0)
        own = attr.runtime
        if attr.policy not in (_SCHED_OTHER, _SCHED_BATCH) or not own:
            return
        tried = own + 1 if own % _KERNELS_SLICES else own + 2
        attr.set(0, tried)
        holds = SchedAttr.of(0).runtime == tried
        attr.set(0, 0)
        if SchedAttr.of(0).runtime != own:
            # That of a tree of the host around this one.
            self._own_slice = own
            attr.set(0, own)
        if holds:
            self.first_slice = own + 1

    def _try_hints(self) -> None:
        raw = io_priority()
        if raw >> 3 & 0x3FF:
            return
        _set_hint(0, FIRST_HINT)
        self.has_hints = hint_of(0) == FIRST_HINT
        _call(_ioprio_set, _WHO_PROCESS, 0, _without_hint(raw))

    def _wear_late(self, flag: bool) -> bool:
        return bool(_prctl(_MCE_KILL, _MCE_KILL_SET if flag else 0, 0, 0, 0) == 0)


def mark_from_outside(os_pid: int, marks: Worn) -> None:
    """Mark all threads of a process that wear none, and so what they fork from now on.

    It needs the same user, or CAP_SYS_NICE: where it has neither, the other marks must do.
    """
    known: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # One that is made meanwhile may be made by one that was not marked yet.
        while new := {int(tid) for tid in os.listdir(f"/proc/{os_pid}/task")} - known:  # noqa: PTH208
            known |= new
            for tid in new:
                _mark_thread(tid, marks)


def _mark_thread(tid: int, marks: Worn) -> None:
    if marks.slice and not slice_of(tid):
        with contextlib.suppress(OSError):
            attr = SchedAttr.of(tid)
            if attr.policy in (_SCHED_OTHER, _SCHED_BATCH):
                attr.set(tid, marks.slice)
    if marks.hint and not hint_of(tid):
        with contextlib.suppress(OSError):
            _set_hint(tid, marks.hint)


def _set_hint(tid: int, hint: int) -> None:
    value = _with_hint(hint, io_priority(tid), SchedAttr.of(tid))
    _call(_ioprio_set, _WHO_PROCESS, tid, value)


def _with_hint(hint: int, raw: int, attr: SchedAttr) -> int:
    """The I/O priority of a thread with a hint, and else with what its priority comes to."""
    io_class, level = raw >> _CLASS_SHIFT, raw & 7
    if not io_class:
        # Derived from how it is scheduled, by the kernel, as long as it has none (ioprio_set(2)).
        io_class, level = _BEST_EFFORT, (attr.nice + 20) // 5
        if attr.policy == _SCHED_IDLE:
            io_class, level = _IDLE, 7
    return io_class << _CLASS_SHIFT | hint << 3 | level


def _without_hint(raw: int) -> int:
    """The I/O priority to go back to; where there is no class, there is nothing else either."""
    return raw if raw >> _CLASS_SHIFT else 0


def _reads_slacks() -> bool:
    """Whether this thread may read the slack of others: it takes a right, but not for its own."""
    try:
        read_proc(f"/proc/{os.getpid()}/timerslack_ns")
    except OSError:
        return False
    return True


def _fields_of_this_thread() -> list[bytes]:
    text = read_proc("/proc/thread-self/stat")
    return text[text.rindex(b")") + 2 :].split()
