"""Whom a child of this host descends from, by all but its parent."""

from __future__ import annotations

import functools
import os
from typing import final

from probate.system import tag_of
from probate_processes.marks import UNWORN, tokens_of
from probate_processes.procfs import Descent, cgroup_of
from probate_processes.threadmarks import Worn, is_late


@final
class Lineage:
    """Shows what there is to see of a child of this host, each looked at when first asked for.

    Whoever judges by it pins the process then, and compares the start time.
    """

    def __init__(self, os_pid: int, descent: Descent) -> None:
        self.os_pid = os_pid
        self.start_time = descent.start_time
        self.session = descent.session
        #: Whether it wears the flag of all trees.
        self.is_late = is_late(descent.flags)

    @classmethod
    def of_child(cls, os_pid: int) -> Lineage | None:
        """Look at a child of this host; None if it is no child of it."""
        try:
            descent = Descent.of(os_pid)
        except ProcessLookupError:
            return None
        return cls(os_pid, descent) if descent.parent == os.getpid() else None

    @functools.cached_property
    def worn(self) -> Worn:
        """What its main thread wears, or, if that has ended, another one."""
        worn = Worn.by(self.os_pid)
        if worn != UNWORN:
            return worn
        try:
            tids = os.listdir(f"/proc/{self.os_pid}/task")  # noqa: PTH208  paths take longer
        except OSError:
            return UNWORN
        others = (Worn.by(int(tid)) for tid in tids if int(tid) != self.os_pid)
        return next((each for each in others if each != UNWORN), UNWORN)

    @functools.cached_property
    def tag(self) -> int | None:
        """Its tag, if it has one."""
        return tag_of(self.os_pid)

    @functools.cached_property
    def cgroup(self) -> str | None:
        """The path of its cgroup."""
        return cgroup_of(self.os_pid)

    @functools.cached_property
    def tokens(self) -> frozenset[bytes]:
        """What the marker in its environment said."""
        return tokens_of(self.os_pid)
