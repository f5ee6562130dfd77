"""What the kernel says this OS process holds: the witness for the demo and for tests.

It is read from /proc (proc(5)), never from tables of ours. On other systems than Linux,
`KernelView.take` raises OSError, and nothing else here is called.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without enums
import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

from probate.system.osprocess import read_proc

_SELF: Final = Path("/proc/self")

#: A folder of descriptors that is being looked at.
_OWN_LOOK: Final = re.compile(r"/proc/\d+/fd$")

#: Start, end and name of a shared mapping, in a line of /proc/PID/maps.
_SHARED_LINE: Final = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) ...s \S+ \S+ \d+ *(.*)")

#: All signals, in order: to ask for them takes longer than for their handlers.
_SIGNALS: Final = tuple(sorted(signal.valid_signals()))

#: Signals 32 and 33, which glibc takes for itself when it first needs them (nptl(7)).
_GLIBC_SIGNALS: Final = 0b11 << 31

#: The thread that forks the programs of this host lives as long as the host, like the main one:
#: so does what it hands on to them (PR_SET_PDEATHSIG, prctl(2)). The one that contains them, too.
_PARKED: Final = {"probate-launch\n", "probate-contain\n"}

#: Seconds that threads which were joined, or set free, get to be gone.
_THREADS_END: Final = 2.0


@final
@dataclass(frozen=True, slots=True)
class KernelView:
    """Records what this OS process holds at one moment, to be compared with a later one."""

    #: Descriptor to what it refers to, such as "socket:[4711]", by inode.
    fds: dict[int, str]
    #: Shared mappings, as "length name", with how many there are of each.
    shared_maps: Counter[str]
    #: Thread ids, but for those that start programs.
    threads: frozenset[int]
    #: Signals with a handler at the C level (SigCgt).
    caught: int
    #: Signals blocked in the calling thread (SigBlk).
    blocked: int
    #: Python-level dispositions, by signal number.
    handlers: dict[int, object]

    @classmethod
    def take(cls) -> Self:
        """Record what this OS process holds now. Raises OSError where there is no /proc."""
        masks = signal_masks()
        return cls(
            fds=open_descriptors(),
            shared_maps=shared_maps(),
            threads=_threads(),
            caught=masks["SigCgt"],
            blocked=masks["SigBlk"],
            handlers=handlers(),
        )

    @property
    def sockets(self) -> frozenset[str]:
        """Return the sockets, by inode."""
        return frozenset(name for name in self.fds.values() if name.startswith("socket:"))

    def changes(self) -> list[str]:
        """Compare with what is held now; return a line for each difference. Raises OSError.

        Waits a moment for threads to end: the kernel still shows one that has just been joined,
        since the interpreter lets go of it first.
        """
        over = time.monotonic() + _THREADS_END
        while _threads() - self.threads and time.monotonic() < over:
            time.sleep(0.001)
        # Only now, when such threads have given back whatever they held.
        return self.differences(KernelView.take())

    def differences(self, later: KernelView) -> list[str]:
        """Compare with a later view; return a line for each difference."""
        lines = [f"fd {fd} is open: {later.fds[fd]}" for fd in later.fds if fd not in self.fds]
        for fd, name in self.fds.items():
            if later.fds.get(fd) != name:
                lines.append(f"fd {fd} was {name} and is {later.fds.get(fd, 'closed')}")
        come, gone = later.shared_maps - self.shared_maps, self.shared_maps - later.shared_maps
        lines += [f"{count} mapping more: {name}" for name, count in come.items()]
        lines += [f"{count} mapping less: {name}" for name, count in gone.items()]
        names = {each.native_id: each.name for each in threading.enumerate()}
        lines += [
            f"thread {tid} runs on ({names.get(tid, 'which Python does not know')})"
            for tid in sorted(later.threads - self.threads)
        ]
        if self.caught != later.caught:
            lines.append(f"signals caught were {self.caught:#x} and are {later.caught:#x}")
        if self.blocked != later.blocked:
            lines.append(f"signals blocked were {self.blocked:#x} and are {later.blocked:#x}")
        for number, handler in self.handlers.items():
            if (now := later.handlers.get(number)) != handler:
                lines.append(f"signal {number} was {handler!r} and is {now!r}")
        return lines


def _threads() -> frozenset[int]:
    tasks = (_SELF / "task").iterdir()
    return frozenset(int(task.name) for task in tasks if not is_parked(task.name))


def is_parked(tid: int | str) -> bool:
    """Tell whether a thread is one that starts programs, or is gone."""
    try:
        return (_SELF / "task" / str(tid) / "comm").read_text() in _PARKED
    except (FileNotFoundError, ProcessLookupError):
        return True


def signal_masks() -> dict[str, int]:
    """Return SigBlk of the calling thread, SigIgn and SigCgt (proc_pid_status(5)), by name."""
    lines = read_proc("/proc/thread-self/status").decode().splitlines()
    words = (line.split() for line in lines if line.startswith("Sig"))
    return {
        name.rstrip(":"): int(mask, 16) & ~_GLIBC_SIGNALS
        for name, mask in words
        if name in {"SigBlk:", "SigIgn:", "SigCgt:"}
    }


def handlers() -> dict[int, object]:
    """Return the dispositions that Python knows of, by signal number."""
    return {each: _signal.getsignal(each) for each in _SIGNALS}


def open_descriptors() -> dict[int, str]:
    """Return what each descriptor refers to, such as "socket:[4711]". Raises OSError."""
    found: dict[int, str] = {}
    with os.scandir(_SELF / "fd") as entries:
        for entry in entries:
            try:
                found[int(entry.name)] = os.readlink(entry.path)
            except FileNotFoundError:
                continue
    # The descriptor that the scan itself used is closed by now.
    return {fd: name for fd, name in found.items() if not _OWN_LOOK.match(name)}


def shared_maps() -> Counter[str]:
    """Return the shared mappings, as "length name", and how many there are. Raises OSError."""
    found: Counter[str] = Counter()
    for line in read_proc("/proc/self/maps").splitlines():
        # Most are private, and told apart soonest by the letter.
        if line[line.find(b" ") + 4 :][:1] == b"s" and (match := _SHARED_LINE.match(line)):
            length = int(match[2], 16) - int(match[1], 16)
            found[f"{length} {os.fsdecode(match[3])}"] += 1
    return found
