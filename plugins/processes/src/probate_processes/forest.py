"""All trees of this host: which of its children lead one, and whose orphans the others are."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Final, final

from probate import forget_in_forked_child
from probate_processes.procfs import Descent, children_of, pin, tag_of
from probate_processes.subreaper import is_subreaper, set_subreaper

if TYPE_CHECKING:
    from probate_processes.tree import Tree

#: Seconds between two searches for orphans that have ended in trees that live on.
_SWEEP_INTERVAL: Final = 1.0


@final
class Forest:
    """The trees by the pid of their leader; no ownership, which is the table's.

    While there is any, this process is a child subreaper, so that no orphan gets away.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._trees: dict[int, Tree] = {}
        self._users = 0
        self._was_subreaper = False
        self._swept_at = 0.0
        forget_in_forked_child(self)

    def open(self) -> None:
        """Be a subreaper, before there is a descendant, and until `close`. Raises OSError."""
        with self._lock:
            if not self._users:
                self._was_subreaper = is_subreaper()
                set_subreaper(True)
            self._users += 1

    def close(self) -> None:
        """Undo one `open`; the last one, unless it was a subreaper before, ends that."""
        with self._lock:
            self._users -= 1
            if not self._users and not self._was_subreaper:
                with contextlib.suppress(OSError):
                    set_subreaper(False)

    def add(self, tree: Tree) -> None:
        """Add a tree, for which `open` was called. Raises ValueError if its leader leads one."""
        with self._lock:
            leading = self._trees.get(tree.os_pid)
            if leading is not None and leading.leader.is_there():
                raise ValueError(f"OS process {tree.os_pid} is owned already")
            self._trees[tree.os_pid] = tree

    def discard(self, tree: Tree) -> None:
        """Take a tree out that is over, once, and `close`."""
        with self._lock:
            if self._trees.get(tree.os_pid) is tree:
                del self._trees[tree.os_pid]
            self.close()

    def strangers(self) -> list[int]:
        """The children of this host that lead no tree: its own, and orphans that came to it."""
        return [os_pid for os_pid in children_of(os.getpid()) if not self._leads(os_pid)]

    def reap_orphans(self) -> None:
        """Reap what has ended of trees that live on, at most once in a while.

        Only what certainly descends from a tree: the host's own children are its own to reap.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._swept_at < _SWEEP_INTERVAL:
                return
            self._swept_at = now
        strangers = self.strangers()
        with self._lock:
            # After the look at strangers: who was a leader then, and is none now, is not ours.
            trees = list(self._trees.values())
        tags = {tree.mark.tag for tree in trees if tree.mark is not None}
        for os_pid in strangers:
            if self._leads(os_pid):
                continue
            process = pin(os_pid)
            if process is None:
                continue
            with process, contextlib.suppress(ProcessLookupError, ChildProcessError):
                descent = Descent.of(os_pid)
                # One in a session of its own may have become the leader of a tree just now, whose
                # status must be kept; an orphan is in the session of another.
                is_in_session = descent.session != os_pid and descent.session in self._trees
                if descent.is_zombie and (is_in_session or tag_of(os_pid) in tags):
                    process.exit_code(reap=True)

    def _leads(self, os_pid: int) -> bool:
        """Whether a process leads a tree: that which has this pid now, not one that had it."""
        tree = self._trees.get(os_pid)
        return tree is not None and (not tree.has_lost_leader or tree.leader.is_there())

    def forget_parent(self) -> None:
        """Know no trees, in a forked child; it is no subreaper (prctl(2))."""
        self._lock = threading.RLock()
        self._trees = {}
        self._users = 0
