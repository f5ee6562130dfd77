"""All trees of this host: which of its children lead one, and whose orphans the others are."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from typing import TYPE_CHECKING, Final, final

from probate import forget_in_forked_child
from probate_processes.procfs import Lineage, children_by_thread, pin
from probate_processes.subreaper import is_subreaper, set_subreaper

if TYPE_CHECKING:
    from probate_processes.tree import Tree

#: Seconds between two searches for orphans that have ended in trees that live on.
_SWEEP_INTERVAL: Final = 1.0

#: A list of children as the kernel gives it (proc(5)), and some of those whom it names.
_Seen = tuple[bytes, tuple[int, ...]]

#: How often it is looked again who the children are, when some were reaped meanwhile.
_LOOKS: Final = 3


@final
class TreeRegistry:
    """Keeps the trees of this host by the pid of their leader; who owns them, the table knows.

    While there is any, this process is a child subreaper, so that no orphan gets away.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._trees: dict[int, Tree] = {}
        #: Of these, those whose leader may be gone.
        self._leaderless: dict[int, Tree] = {}
        #: Those that are marked, by their tag.
        self._by_tag: dict[int, Tree] = {}
        #: By thread: the list of children that was seen last, without the leaders of trees that are
        #: over by now, and who of them led no tree.
        self._seen: dict[str, _Seen] = {}
        #: The unclaimed children as they were found for a round of deaths, and for which one.
        self._looked_at: tuple[int, list[Lineage]] = (-1, [])
        self._users = 0
        self._was_subreaper = False
        self._swept_at = 0.0
        forget_in_forked_child(self)

    def open(self) -> None:
        """Become a subreaper, before there is a descendant, until `close`. Raises OSError."""
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
            self._leaderless.pop(tree.os_pid, None)
            if tree.mark is not None:
                self._by_tag[tree.mark.tag] = tree

    def expect_exit(self, tree: Tree) -> None:
        """From now on ask whether the leader of a tree is there: its pid may come round."""
        with self._lock:
            tree.may_lack_leader = True
            if self._trees.get(tree.os_pid) is tree:
                self._leaderless[tree.os_pid] = tree

    def discard(self, tree: Tree) -> None:
        """Take out a tree that is over, and `close`."""
        with self._lock:
            if self._trees.get(tree.os_pid) is tree:
                del self._trees[tree.os_pid]
                self._leaderless.pop(tree.os_pid, None)
                self._seen = {
                    thread: (_without(words, tree.os_pid), sifted)
                    for thread, (words, sifted) in self._seen.items()
                }
            if tree.mark is not None:
                self._by_tag.pop(tree.mark.tag, None)
            self.close()

    def unclaimed_children(self) -> list[int]:
        """List the children of this host that lead no tree: its own, and orphans left to it."""
        children = children_by_thread(os.getpid())
        with self._lock:
            self._seen = {
                thread: self._sift(words, self._seen.get(thread, (b"", ())))
                for thread, words in children.items()
            }
            sifted = [os_pid for _, found in self._seen.values() for os_pid in found]
            leaderless = list(self._leaderless)
        # Of those who lead a tree, most live, and there is nothing to ask about them.
        sifted += (
            os_pid for os_pid in leaderless if any(_has(each, os_pid) for each in children.values())
        )
        return [os_pid for os_pid in sifted if not self._leads(os_pid)]

    def has_orphans_of(self, tree: Tree, death_round: int) -> bool:
        """Whether a tree, whose leader has exited, may have left orphans; False only if certain.

        The children of this host are looked at once for all who were dead as a round of the death
        watch began.
        """
        if self._looked_at[0] != death_round:
            found = self._look()
            if found is None:
                return True
            self._looked_at = (death_round, found)
        return any(tree.includes(each) for each in self._looked_at[1])

    def reap_orphans(self, death_round: int | None = None) -> None:
        """Reap what has ended of trees that live on, at most once in a while.

        Only what certainly descends from a tree: the host's own children are its own to reap.
        Those that were looked at in a round of deaths need not be looked for.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._swept_at < _SWEEP_INTERVAL:
                return
            self._swept_at = now
        looked_in, found = self._looked_at
        if looked_in != death_round:
            found = self._lineages()
        # After that look: who was a leader then, and is none now, is not ours.
        for each in found:
            if not self._is_dead_orphan(each):
                continue
            process = pin(each.os_pid)
            if process is None:
                continue
            with process, contextlib.suppress(ChildProcessError):
                pinned = Lineage.of_child(each.os_pid)
                if pinned is not None and self._is_dead_orphan(pinned):
                    process.exit_code(reap=True)

    def forget_parent(self) -> None:
        """Know no trees, in a forked child; it is no subreaper (prctl(2))."""
        self._lock = threading.RLock()
        self._trees, self._leaderless, self._by_tag, self._seen = {}, {}, {}, {}
        self._looked_at = (-1, [])
        self._users = 0

    def _sift(self, words: bytes, seen: _Seen) -> _Seen:
        """A list of children, and who of them led no tree as they were first seen there.

        The kernel adds to the end of a list: of what was seen before, nothing has to be read
        again. If some of that is gone, other than with a tree, it is read from the beginning.
        """
        before, sifted = seen if words.startswith(seen[0]) else (b"", ())
        new = words[len(before) :].split()
        return words, (*sifted, *(os_pid for os_pid in map(int, new) if os_pid not in self._trees))

    def _lineages(self) -> list[Lineage]:
        found = (Lineage.of_child(os_pid) for os_pid in self.unclaimed_children())
        return [each for each in found if each is not None]

    def _look(self) -> list[Lineage] | None:
        """The unclaimed children at one moment; None if children go too fast to tell.

        Of children that are reaped meanwhile, the kernel may skip the next ones (proc(5)). Whoever
        is reaped adds what it has used to that of the children reaped so far (getrusage(2)).
        """
        for _ in range(_LOOKS):
            reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
            found = self._lineages()
            if resource.getrusage(resource.RUSAGE_CHILDREN) == reaped:
                return found
        return None

    def _is_dead_orphan(self, lineage: Lineage) -> bool:
        """Whether a child of this host is a zombie, and certainly comes from a tree."""
        # One in a session of its own may have become the leader of a tree just now, whose status
        # must be kept; an orphan is in the session of another.
        is_in_session = lineage.session != lineage.os_pid and lineage.session in self._trees
        is_ours = is_in_session or lineage.tag in self._by_tag
        return lineage.is_zombie and is_ours and not self._leads(lineage.os_pid)

    def _leads(self, os_pid: int) -> bool:
        """Whether a process leads a tree: that which has this pid now, not one that had it."""
        tree = self._trees.get(os_pid)
        return tree is not None and (not tree.may_lack_leader or tree.leader.is_there())


def _has(words: bytes, os_pid: int) -> bool:
    """Whether a list of children, with a space after each, names a process."""
    word = b"%d " % os_pid
    return words.startswith(word) or b" " + word in words


def _without(words: bytes, os_pid: int) -> bytes:
    word = b"%d " % os_pid
    if words.startswith(word):
        return words[len(word) :]
    return words.replace(b" " + word, b" ", 1)
