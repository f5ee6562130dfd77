"""What OS processes use, as psutil reads it; what they are called; notes for the account."""

from __future__ import annotations

import contextlib
import os
import shlex
from typing import TYPE_CHECKING, Final

from probate import add_note
from probate.system import read_proc
from probate_processes.native import Child
from probate_processes.procfs import folder_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate import OsUsage, ResourceId, ResourceUsage
    from probate_processes.tree import Tree

#: How much of a command line a description has room for.
_WIDTH: Final = 80


def os_usage(os_pids: Iterable[int]) -> OsUsage:
    """Sum up what these processes use; those that are gone by now use nothing."""
    # Late: most hosts never ask, and the two take longer to import than all of this plugin.
    import psutil

    from probate import OsUsage

    processes = threads = fds = rss = 0
    cpu = 0.0
    for os_pid in os_pids:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(os_pid)
            with process.oneshot():
                times = process.cpu_times()
                memory = process.memory_info().rss
                threads += process.num_threads()
            processes += 1
            cpu += times.user + times.system
            folder = folder_of(os_pid)
            if folder.count("/") == 2:
                rss += memory
                # Another user's are not ours to see.
                fds += process.num_fds()
            else:
                # psutil asks its main thread, which has nothing any more.
                rss += int(read_proc(f"{folder}/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
                fds += len(os.listdir(f"{folder}/fd"))  # noqa: PTH208  paths take longer
    return OsUsage(processes=processes, threads=threads, fds=fds, rss=rss, cpu=cpu)


def usage_without(over: set[ResourceId], usage: ResourceUsage, used: OsUsage) -> ResourceUsage:
    """Leave out some, which are over, and say what is used by those that are not."""
    left = tuple(each for each in usage.resources if each.id not in over)
    count = usage.count - len(usage.resources) + len(left)
    return usage.model_copy(update={"count": count, "resources": left, "os": used})


def in_words(argv: Iterable[str | bytes | os.PathLike[str] | os.PathLike[bytes]]) -> str:
    """Put a command line into a few words, in which nothing is a command to a terminal."""
    text = shlex.join([os.fsdecode(argument) for argument in argv])
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def describe(os_pid: int) -> str:
    """Describe a living process by its pid and command line."""
    words: list[bytes] = []
    with contextlib.suppress(OSError):
        words = read_proc(f"{folder_of(os_pid)}/cmdline").split(b"\0")[:-1]
    return f"{os_pid} {in_words(words)}".rstrip()


def note_shared_files(tree: Tree) -> None:
    """Add to the account what stays in /dev/shm of those who were killed."""
    if left := tree.shared_files.left():
        add_note(f"{tree!r} {left}")


def note_observed(tree: Tree) -> None:
    """Give back what a tree that was looked on has left by name, and tell of it in the account."""
    if tree.observation is not None and isinstance(tree.native, Child):
        for text in tree.observation.settle(tree.native.returncode):
            add_note(f"{tree!r} {text}")


def note_untold(tree: Tree) -> None:
    """Say so in the account if some may have been left: those whose tree cannot be told."""
    if tree.untold:
        count = f"{len(tree.untold)} process{'es' if len(tree.untold) > 1 else ''}"
        add_note(
            f"{count} came to this host as orphans and could not be told: of a tree of this host, "
            f"and nobody knows of which ({', '.join(map(str, tree.untold))})"
        )
