"""All trees of this host: which of its children lead one, and whose orphans the others are."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate import forget_in_forked_child
from probate.system import subreaper_users
from probate_processes.launcher import launchers
from probate_processes.lineage import Lineage
from probate_processes.marks import UNWORN
from probate_processes.membership import MarkedTrees
from probate_processes.procfs import Descent, children_by_thread, pin

if TYPE_CHECKING:
    from probate import OsProcess
    from probate_processes.tree import Tree

#: Seconds between two searches for orphans that have ended in trees that live on.
_SWEEP_INTERVAL: Final = 1.0

#: Seconds for which a look at the children serves who asks for an account.
_RECENT: Final = 0.1

#: How often it is looked again who the children are, when some were reaped meanwhile.
_LOOKS: Final = 3
#: How often they are listed again, when a new one had gone before it was told whose it is.
_LISTINGS: Final = 20

#: How many members are remembered before those that are gone are forgotten.
_REMEMBERED: Final = 256


@final
class _Judged(NamedTuple):
    """A child of this host that leads no tree, and whose it is, if it is any tree's."""

    lineage: Lineage
    tree: Tree | None


@final
class TreeRegistry:
    """Keeps the trees of this host by the pid of their leader; who owns them, the table knows.

    While there is any, this process is a child subreaper, so that no orphan gets away. All trees
    share one look at the orphans: each is judged once, as it comes.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._trees: dict[int, Tree] = {}
        #: Of these, those whose leader may be gone.
        self._leaderless: dict[int, Tree] = {}
        self._marked = MarkedTrees()
        #: Members that were seen while their parent was there: their tree and start time, by pid.
        self._known: dict[int, tuple[int, Tree]] = {}
        self._most_known = _REMEMBERED
        #: The unclaimed children, by pid, as they were at the last look.
        self._judged: dict[int, _Judged] = {}
        #: When that was.
        self._looked_at = float("-inf")
        #: For which round of deaths it was looked last, and what was found.
        self._looked: tuple[int, dict[int, _Judged]] = (-1, {})
        self._swept_at = 0.0
        forget_in_forked_child(self)
        _registries.add(self)

    def open(self, user: object) -> None:
        """Become a subreaper, before there is a descendant, until `close`. Raises OSError."""
        subreaper_users.add(user)

    def close(self, user: object) -> None:
        """Undo `open`; the last one on this host, unless it was a subreaper before, ends that."""
        if subreaper_users.discard(user):
            _reap_strangers(self._look())

    def add(self, tree: Tree) -> None:
        """Add a tree, for which `open` was called. Raises ValueError if its leader leads one."""
        with self._lock:
            leading = self._trees.get(tree.os_pid)
            if leading is not None and leading.leader.is_there():
                raise ValueError(f"OS process {tree.os_pid} is owned already")
            self._trees[tree.os_pid] = tree
            self._leaderless.pop(tree.os_pid, None)
            self._marked.add(tree)

    def expect_exit(self, tree: Tree) -> None:
        """From now on ask whether the leader of a tree is there: its pid may come round."""
        with self._lock:
            tree.may_lack_leader = True
            if self._trees.get(tree.os_pid) is tree:
                self._leaderless[tree.os_pid] = tree

    def discard(self, tree: Tree) -> None:
        """Take out a tree that is over, and `close` for it."""
        with self._lock:
            if self._trees.get(tree.os_pid) is tree:
                del self._trees[tree.os_pid]
                self._leaderless.pop(tree.os_pid, None)
            self._marked.discard(tree)
            for judged in (self._judged, self._looked[1]):
                for os_pid in _those_of(tree, judged):
                    judged.pop(os_pid, None)
            for os_pid in tree.remembered:
                if self._known.get(os_pid, (0, None))[1] is tree:
                    del self._known[os_pid]
            tree.remembered.clear()
            self.close(tree.user)

    def remember(self, tree: Tree, member: OsProcess) -> None:
        """Know a member again when it has come to us as an orphan, whatever it has shed by then."""
        tree.remembered.add(member.os_pid)
        self._known[member.os_pid] = member.start_time, tree
        if len(self._known) > self._most_known:
            for os_pid, (start_time, its_tree) in list(self._known.items()):
                if its_tree.is_over or not _is_still(os_pid, start_time):
                    self._known.pop(os_pid, None)
            self._most_known = max(_REMEMBERED, 2 * len(self._known))

    def unclaimed_children(self, tree: Tree) -> dict[int, int]:
        """Find the children that lead no tree, and belong to this one: start times by pid."""
        return _those_of(tree, self._look())

    def recent_unclaimed_children(self, tree: Tree) -> dict[int, int]:
        """As `unclaimed_children`, by a look that may be a moment old: one for many trees."""
        if time.monotonic() - self._looked_at > _RECENT:
            self._look()
        return _those_of(tree, self._judged)

    def has_orphans_of(self, tree: Tree, death_round: int | None) -> bool:
        """Whether a tree, whose leader has exited, may have left orphans; False only if certain.

        The children of this host are looked at once for all who were dead as a round of the death
        watch began. Of children that are reaped meanwhile, the kernel may skip the next ones
        (proc(5)). Whoever is reaped adds what it has used to that of the children reaped so far
        (getrusage(2)).
        """
        looked_in, found = self._looked
        if death_round is None or looked_in != death_round:
            for _ in range(_LOOKS):
                reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
                found = self._look()
                if resource.getrusage(resource.RUSAGE_CHILDREN) == reaped:
                    break
            else:
                return True
            self._looked = (-1 if death_round is None else death_round), found
        return bool(_those_of(tree, found))

    def reap_orphans(self, death_round: int | None = None) -> None:
        """Reap what has ended of trees that live on, at most once in a while.

        Only what certainly descends from a tree, or what nobody here can have forked: the host's
        own children are its own to reap.
        Those that were looked at in a round of deaths need not be looked for.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._swept_at < _SWEEP_INTERVAL:
                return
            self._swept_at = now
        looked_in, found = self._looked
        if death_round is None or looked_in != death_round:
            found = self._look()
        ours = [
            (each.lineage, each.tree)
            for each in list(found.values())
            if each.tree is not None and not self._leads(each.lineage.os_pid)
        ]
        for lineage, tree in ours:
            if not _is_zombie(lineage) or (process := pin(lineage.os_pid)) is None:
                continue
            with process:
                if process.start_time == lineage.start_time:
                    tree.reap(process)
        _reap_strangers(found)

    def untold(self) -> list[int]:
        """List the living orphans that come from some tree of this host, and no mark tells which.

        It takes a program that sheds what it was born with on purpose.
        """
        return self._untold_of(self._look())

    def untold_then(self) -> list[int]:
        """List those who were so when it was last looked who had left orphans."""
        return self._untold_of(self._looked[1])

    def forget_parent(self) -> None:
        """Know no trees, in a forked child."""
        self._lock = threading.RLock()
        self._trees, self._leaderless, self._known, self._judged = {}, {}, {}, {}
        self._marked = MarkedTrees()
        self._looked, self._looked_at = (-1, {}), float("-inf")

    def count_marked(self) -> int:
        """Count the trees whose processes are marked."""
        return self._marked.count

    # -- inside ---------------------------------------------------------------

    def _look(self) -> dict[int, _Judged]:
        """See who the unclaimed children are, and judge those that are new.

        Without the lock: what falls into a look may well end trees, on other threads.
        """
        found, is_certain = self._judge_children()
        for _ in range(_LISTINGS):
            if is_certain:
                break
            found, is_certain = self._judge_children()
        return found

    def _judge_children(self) -> tuple[dict[int, _Judged], bool]:
        """Look once; also return whether each new child was told, while alive, whose it is.

        Else its own children may have come to us since, and nothing tells yet whose they are.
        """
        looked_at = time.monotonic()
        by_thread = children_by_thread(os.getpid())
        for tid in launchers.tids():
            # Whoever was forked there and leads no tree was so by a stranger: an orphan never is.
            by_thread.pop(str(tid), None)
        before, found, is_certain = self._judged, dict[int, _Judged](), True
        # By the kernel, which then counts nothing of it (getrusage(2)).
        are_reaped_unseen = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        for words in by_thread.values():
            for os_pid in map(int, words.split()):
                if self._leads(os_pid):
                    continue
                judged = before.get(os_pid)
                if judged is not None and judged.tree is None:
                    # It may be another one that has the pid by now, or what it shows be given out
                    # since. Of members, whoever pins one sees whether it is the same.
                    still = _is_still(os_pid, judged.lineage.start_time)
                    judged = self._judge(judged.lineage) if still else None
                elif judged is not None and judged.tree.is_over:  # type: ignore[union-attr]
                    judged = None
                if judged is None:
                    lineage = Lineage.of_child(os_pid)
                    judged = None if lineage is None else self._judge(lineage)
                    if judged is None:
                        is_certain &= not are_reaped_unseen
                    elif judged.tree is None and _is_zombie(judged.lineage):
                        is_certain = False
                if judged is not None:
                    found[os_pid] = judged
        self._judged, self._looked_at = found, looked_at
        return found, is_certain

    def _untold_of(self, judged: dict[int, _Judged]) -> list[int]:
        return [
            os_pid
            for os_pid, (lineage, tree) in list(judged.items())
            if tree is None and self._is_untold(lineage) and not _is_zombie(lineage)
        ]

    def _judge(self, lineage: Lineage) -> _Judged:
        tree = self._known_tree(lineage) or self._marked.tree_of(lineage)
        if tree is None and (tree := self._trees.get(lineage.session)) is not None:
            is_member = lineage.session != lineage.os_pid and tree.has_session()
            tree = tree if is_member else None
        if tree is None and self._is_untold(lineage) and _count_marked() == 1:
            tree = self._marked.only()
        return _Judged(lineage, tree)

    def _known_tree(self, lineage: Lineage) -> Tree | None:
        start_time, tree = self._known.get(lineage.os_pid, (0, None))
        return tree if start_time == lineage.start_time else None

    def _is_untold(self, lineage: Lineage) -> bool:
        """Whether a child shows that it comes from some tree of this host, and no more."""
        return (
            lineage.is_late
            and (marks := launchers.marks()) is not None
            and marks.has_late
            and lineage.worn == UNWORN
            and not lineage.tag
            and not lineage.tokens
        )

    def _leads(self, os_pid: int) -> bool:
        """Whether a process leads a tree: that which has this pid now, not one that had it."""
        tree = self._trees.get(os_pid)
        return tree is not None and (not tree.may_lack_leader or tree.leader.is_there())


def _those_of(tree: Tree, judged: dict[int, _Judged]) -> dict[int, int]:
    """Return start times by pid."""
    ours = ((os_pid, each) for os_pid, each in list(judged.items()) if each.tree is tree)
    return {os_pid: each.lineage.start_time for os_pid, each in ours}


def _reap_strangers(found: dict[int, _Judged]) -> None:
    """Reap what has ended and is no tree's, but came to us as a subreaper: nobody else will.

    Whoever was forked here is in our session, or leads one (setsid(2)); what is in one whose leader
    has gone was forked by somebody below.
    """
    ours = os.getsid(0)
    for os_pid, (lineage, tree) in list(found.items()):
        if tree is not None or lineage.session in {ours, os_pid} or not _is_zombie(lineage):
            continue
        if os.path.isdir(f"/proc/{lineage.session}"):  # noqa: PTH112  paths take longer
            continue
        if (process := pin(os_pid)) is None:
            continue
        with process, contextlib.suppress(ChildProcessError):
            if process.start_time == lineage.start_time:
                os.waitid(os.P_PIDFD, process.fileno(), os.WEXITED | os.WNOHANG)


def _count_marked() -> int:
    return sum(each.count_marked() for each in list(_registries))


#: Those of all managers.
_registries: Final[weakref.WeakSet[TreeRegistry]] = weakref.WeakSet()


def _is_still(os_pid: int, start_time: int) -> bool:
    try:
        return Descent.of(os_pid).start_time == start_time
    except ProcessLookupError:
        return False


def _is_zombie(lineage: Lineage) -> bool:
    try:
        descent = Descent.of(lineage.os_pid)
    except ProcessLookupError:
        return False
    return descent.is_zombie and descent.start_time == lineage.start_time
