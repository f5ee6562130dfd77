"""What is known of a run before its command starts; and what its keepers leave to one another."""

from __future__ import annotations

import itertools
import mmap
import os
import time
from typing import Any, Final, NamedTuple, Self, final

from probate.run.options import RunOptions
from probate.run.tree import RunTree
from probate.system.osprocess import read_proc, start_time_of
from probate.system.tagging import tag_for

#: The environment variable that has the name of the socket by which runs within a run join it.
KEEPER_VARIABLE: Final = "PROBATE_KEEPER"

#: Numbers the runs of one process, above all numbers of trees that it starts otherwise.
_FIRST_NUMBER: Final = 1 << 31
_numbers: Final = itertools.count()

#: The bytes of the memory that is shared, and where it says where the store is.
_SIZE: Final = 8192
_STORE_AT: Final = 4096


@final
class RunFacts(NamedTuple):
    """What is known of a run, to its front and to each of its keepers."""

    #: The front's pid.
    front: int
    #: When the front was started, in clock ticks since boot.
    started: int
    #: When the run began, in ns since the epoch.
    begun: int
    nonce: str
    tag: int
    options: RunOptions
    #: Whether the front had no children before, and starts none but the command.
    is_alone: bool = False

    @classmethod
    def of_this_process(cls, options: RunOptions, tag: int = 0) -> Self:
        """Return those of a run whose front is this process; its own number is its tag, or this."""
        front = os.getpid()
        started = start_time_of(front)
        # One that is given is that of a tree among others, in a host.
        is_alone = not tag and not _has_children()
        tag = tag or tag_for(front, started, _FIRST_NUMBER + next(_numbers))
        begun, nonce = time.time_ns(), os.urandom(8).hex()
        return cls(front, started, begun, nonce, tag, options, is_alone)

    def tree(self) -> RunTree:
        """Return the tree, of which nobody is known yet."""
        alone = self.is_alone
        return RunTree(self.front, self.started, self.nonce, self.tag, is_front_alone=alone)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**self._asdict(), "options": self.options._asdict()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what `to_json` has made. Raises TypeError, KeyError."""
        options: dict[str, Any] = {
            name: tuple(each) if isinstance(each, list) else each
            for name, each in value["options"].items()
        }
        return cls(**{**value, "options": RunOptions(**options)})


def _has_children() -> bool:
    """Tell whether this process may have children: of whoever has executed this program in it."""
    threads = "/proc/self/task"
    try:
        tids = os.listdir(threads)  # noqa: PTH208  pathlib takes long to import
        return any(read_proc(f"{threads}/{tid}/children") for tid in tids)
    except OSError:
        # It takes CONFIG_PROC_CHILDREN (proc(5)).
        return True


@final
class SharedPage:
    """Memory that a front and its keepers share, so that a new one finds what the dead one had.

    First is the call that was received last; then, where the store is. It is that of a file, if one
    is given, for a keeper that is not forked from its front.
    """

    def __init__(self, fd: int = -1) -> None:
        self.fd = fd
        self.memory = mmap.mmap(fd, _SIZE)

    @classmethod
    def in_file(cls) -> Self:
        """Make one that is that of a file, which is in memory alone. Raises OSError."""
        fd = os.memfd_create("probate-run")
        try:
            os.ftruncate(fd, _SIZE)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Let go of it."""
        self.memory.close()
        if self.fd >= 0:
            os.close(self.fd)

    @property
    def store(self) -> str:
        """Where the store is; nothing before there is one."""
        length = int.from_bytes(self.memory[_STORE_AT : _STORE_AT + 2], "little")
        return os.fsdecode(self.memory[_STORE_AT + 2 : _STORE_AT + 2 + length])

    def set_store(self, path: str) -> None:
        """Say where the store is."""
        text = os.fsencode(path)
        self.memory[_STORE_AT + 2 : _STORE_AT + 2 + len(text)] = text
        # It counts when its length is there.
        self.memory[_STORE_AT : _STORE_AT + 2] = len(text).to_bytes(2, "little")
