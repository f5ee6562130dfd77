"""What this OS process holds, as cheap to take as to take before and after each test.

The kernel is asked (proc(5)), and for asyncio's tasks the interpreter. Two looks are compared by
what no later thing has again as long as the first is there: the inode of a socket, a thread's id.
Numbers alone would hide that an earlier test's garbage was collected meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self, final

from probate.system.osprocess import read_proc
from probate.testing.witness import (
    handlers,
    is_parked,
    open_descriptors,
    shared_maps,
    signal_masks,
)

_TASKS: Final = "/proc/self/task"

#: What a mask of /proc/PID/status is about.
_MASKS: Final = {"SigBlk": "blocked", "SigIgn": "ignored", "SigCgt": "caught"}


@final
class Thing(NamedTuple):
    """One thing that is there and was not, or a disposition that is another than it was."""

    #: The kind: of Probate's kinds the one that would own it, or "threads".
    kind: str
    #: What tells it from others of its kind.
    identity: tuple[Any, ...]


@final
@dataclass(frozen=True, slots=True)
class Held:
    """What this OS process holds at one moment."""

    fds: dict[int, str]
    maps: Counter[str]
    #: Pages of address space, which changes when maps do (proc_pid_statm(5)).
    size: int
    threads: frozenset[int]
    children: frozenset[int]
    #: System V segments that this process has created, and that are not removed.
    segments: frozenset[int]
    masks: dict[str, int]
    handlers: dict[int, object]
    #: asyncio's tasks that are not done; not kept alive.
    tasks: frozenset[weakref.ref[asyncio.Task[Any]]]

    @classmethod
    def take(cls, earlier: Held | None = None) -> Self:
        """Look. Raises OSError where there is no /proc.

        The list of maps takes as long as all else together; it is `earlier`'s as long as the
        address space is as large as it was then.
        """
        size = int(read_proc("/proc/self/statm").split()[0])
        same = earlier is not None and earlier.size == size
        # First the children, since a thread that has ended has handed on its own (wait(2)).
        tids = os.listdir(_TASKS)  # noqa: PTH208  a fraction of the time
        return cls(
            fds=open_descriptors(),
            maps=earlier.maps if earlier is not None and same else shared_maps(),
            size=size,
            threads=frozenset(map(int, tids)),
            children=children_of(tids),
            segments=sysv_ids("shm", os.getpid()),
            masks=signal_masks(),
            handlers=handlers(),
            tasks=pending_tasks(),
        )

    def since(self, before: Held) -> set[Thing]:
        """Return what is there now and was not then."""
        found = {
            Thing("sockets" if name.startswith("socket:") else "files", (fd, name))
            for fd, name in self.fds.items()
            if before.fds.get(fd) != name
        }
        found.update(
            Thing("mmap", (name, number))
            for name, count in self.maps.items()
            for number in range(before.maps[name], count)
        )
        found.update(
            Thing("threads", (tid,)) for tid in self.threads - before.threads if not is_parked(tid)
        )
        found.update(Thing("processes", (pid,)) for pid in self.children - before.children)
        found.update(Thing("memory", ("shm", id_)) for id_ in self.segments - before.segments)
        found.update(Thing("tasks", (task,)) for task in self.tasks - before.tasks)
        return found | set(self._dispositions_since(before))

    def _dispositions_since(self, before: Held) -> list[Thing]:
        """Return the changed dispositions; of one that Python knows nothing of the bit alone."""
        found = [
            # By what it is itself: it may be of a class whose instances have no hash.
            Thing("signals", ("handled", number, id(handler)))
            for number, handler in self.handlers.items()
            if handler is not before.handlers[number]
        ]
        told = sum(1 << (thing.identity[1] - 1) for thing in found)
        for name, what in _MASKS.items():
            changed = self.masks[name] ^ before.masks[name]
            if name != "SigBlk":
                changed &= ~told
            found += [
                Thing("signals", (what, number, bool(self.masks[name] >> number - 1 & 1)))
                for number in range(1, changed.bit_length() + 1)
                if changed >> number - 1 & 1
            ]
        return found

    def crediting(self, before: Held, after: Held) -> Held:
        """Return this look, with what has come, or changed, between two others counted in."""
        come = {fd: name for fd, name in after.fds.items() if before.fds.get(fd) != name}
        handled = {
            number: handler
            for number, handler in after.handlers.items()
            if handler is not before.handlers[number]
        }
        masks = {}
        for name, mask in self.masks.items():
            changed = before.masks[name] ^ after.masks[name]
            masks[name] = mask & ~changed | after.masks[name] & changed
        return replace(
            self,
            fds=self.fds | come,
            maps=self.maps + (after.maps - before.maps),
            size=after.size if self.size == before.size else -1,
            threads=self.threads | (after.threads - before.threads),
            children=self.children | (after.children - before.children),
            segments=self.segments | (after.segments - before.segments),
            masks=masks,
            handlers=self.handlers | handled,
            tasks=self.tasks | (after.tasks - before.tasks),
        )

    def emptied(self) -> Held:
        """Return this look, with its dispositions alone."""
        none: frozenset[Any] = frozenset()
        return replace(
            self, fds={}, maps=Counter(), threads=none, children=none, segments=none, tasks=none
        )

    def with_dispositions_of(self, other: Held) -> Held:
        """Return this look, with the dispositions of another."""
        return replace(self, masks=other.masks, handlers=other.handlers)


def children_of(tids: list[str]) -> frozenset[int]:
    """Return the children of this process, those that have ended and are not waited for, too."""
    found: set[int] = set()
    for tid in tids:
        try:
            found.update(map(int, read_proc(f"{_TASKS}/{tid}/children").split()))
        except ProcessLookupError:
            continue
        except FileNotFoundError:
            if os.path.exists(f"{_TASKS}/{tid}"):  # noqa: PTH110  a fraction of the time
                return _children_by_psutil()
    return frozenset(found)


def _children_by_psutil() -> frozenset[int]:
    """Of a kernel without CONFIG_PROC_CHILDREN: by a look at all processes."""
    import psutil

    return frozenset(child.pid for child in psutil.Process().children())


def sysv_ids(which: str, creator: int | None = None) -> frozenset[int]:
    """Return the ids of all semaphores ("sem"), queues ("msg") or segments ("shm") that there are.

    Of segments, of no others: of those whose creator has this pid, says the kernel (cpid; proc(5)).
    """
    try:
        head, *lines = read_proc(f"/proc/sysvipc/{which}").splitlines()
    except OSError:
        return frozenset()
    rows = [line.split() for line in lines]
    if creator is not None:
        column, own = head.split().index(b"cpid"), str(creator).encode()
        rows = [row for row in rows if row[column] == own]
    # In all three, the id is the second column.
    return frozenset(int(row[1]) for row in rows)


def pending_tasks() -> frozenset[weakref.ref[asyncio.Task[Any]]]:
    """Return the tasks of all loops that are not done."""
    # There is no public way to those of a loop that nobody has at hand: `asyncio.all_tasks` reads
    # the first of these in 3.11, and the other two from 3.12 on.
    found: set[asyncio.Task[Any]] = set()
    for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks"):
        for _ in range(100):
            try:
                found.update(getattr(asyncio.tasks, name, ()))
            except RuntimeError:  # another thread has just made one
                continue
            break
    return frozenset(weakref.ref(task) for task in found if not task.done())
