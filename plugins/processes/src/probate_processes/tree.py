"""A tree: an OS process, and all that descends from it, wherever it has gone to."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, final

from probate.system import tag_untagged
from probate_processes.procfs import Descent, children_of, pin_if
from probate_processes.sharedmemory import SharedFiles
from probate_processes.threadmarks import mark_from_outside

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import OsProcess
    from probate.process import Observation
    from probate.system import Timer
    from probate_processes.cgroup import Cgroup
    from probate_processes.marks import Mark
    from probate_processes.native import Native
    from probate_processes.procfs import Members
    from probate_processes.stopping import Stopping

    #: The children of this host that lead no tree, and belong to this one: start times by pid.
    UnclaimedChildren = Callable[["Tree"], dict[int, int]]


@final
class Tree:
    """Pins one process, the leader, and knows its descendants.

    A descendant is whoever has a member for a parent, is in the tree's cgroup, or is an orphan
    that came to us (subreaper.py) and is marked (marks.py), was a member when it was seen last, or
    is in the leader's session.
    """

    def __init__(
        self,
        native: Native,
        leader: OsProcess,
        cgroup: Cgroup | None,
        mark: Mark | None,
        user: object,
        remember: Callable[[Tree, OsProcess], None],
    ) -> None:
        self.native = native
        self.leader = leader
        #: The leader's pidfd.
        self.descriptors = leader.descriptors
        self.cgroup = cgroup
        #: None for a stranger's tree, whose processes are not marked.
        self.mark = mark
        #: Looks on as it makes things by name, if somebody does, and gives them back in the end.
        self.observation: Observation | None = None
        #: For whom this host is a subreaper.
        self.user = user
        self._remember = remember
        #: The members that are known should they become orphans, by pid.
        self.remembered: set[int] = set()
        #: Whether anybody new was found outside of the cgroup, alive or dead.
        self.was_outside = False
        #: Whether a look came too late for somebody, who may have left a child to the next one.
        self.has_lost_sight = False
        #: The owner when it was made; another one may have it by now.
        self.owner = 0
        #: Whether we have asked it to stop, so that its end is our doing.
        self.is_asked = False
        #: Whether all of it are asked to stop at once, instead of the leader first.
        self.asks_all = False
        #: How it was asked last, if it was.
        self.stopping: Stopping | None = None
        #: Whether somebody is killing it, and does what there is to do at its end.
        self.is_being_killed = False
        #: What its processes had in /dev/shm when they were killed.
        self.shared_files = SharedFiles()
        #: Orphans that may have been of it when it ended: nobody can tell.
        self.untold: list[int] = []
        #: Whether it could not be killed in time, so that nobody but the kernel ends it.
        self.has_outlived_kill = False
        #: When it is looked at again, if so, and after how many seconds.
        self.timer: Timer | None = None
        self.pause = 0.01
        #: Whether the leader may exit at any moment, somebody else reap it, and its pid come round.
        self.may_lack_leader = False
        #: Whether it is over: nobody is left, and the leader is reaped.
        self.is_over = False
        #: Guards these; never held while anybody waits for processes.
        self.lock = threading.RLock()
        #: Held by whoever kills it.
        self.killing = threading.RLock()

    def __repr__(self) -> str:
        return f"OS process {self.native!r}"

    @property
    def os_pid(self) -> int:
        """The pid of the leader."""
        return self.leader.os_pid

    @property
    def is_over_but_for_names(self) -> bool:
        """Whether it has ended by itself, and is owned for what it may have left by name alone."""
        return self.is_over and self.observation is not None and not (self.is_asked or self.untold)

    def scan(self, members: Members, unclaimed_children: UnclaimedChildren) -> bool:
        """Find and pin those members that are not known yet; whether there were any.

        They are marked as far as they are not, and moved into the cgroup, if there is one. What is
        forked meanwhile may be missed: whoever needs all scans until there are no more. Raises
        OSError if there are no descriptors for all of them; as many as can be are pinned then.
        """
        found = self._consider(self.os_pid, members, lambda _: self.leader.is_there())
        queue = list(members)
        if self.cgroup is not None:
            for os_pid in self.cgroup.members():
                if self._consider(os_pid, members, self._is_inside):
                    found = True
                    queue.append(os_pid)
        for os_pid, start_time in unclaimed_children(self).items():
            if self._consider(os_pid, members, partial(_was_started_at, start_time)):
                found = True
                queue.append(os_pid)
        while queue:
            parent = members.get(queue.pop())
            if parent is None or parent.has_exited():
                continue
            for os_pid in children_of(parent.os_pid):
                if self._consider(os_pid, members, partial(_is_child, parent)):
                    found = True
                    queue.append(os_pid)
        return found

    def reap(self, process: OsProcess) -> bool:
        """Reap a dead member that has come to us; not the leader, whose pid is still needed.

        Returns False if that cannot be done yet: whoever traces it has to wait for it first, and
        meanwhile the kernel shows its status to nobody else (ptrace(2)).
        """
        try:
            return process.exit_code(reap=process.os_pid != self.os_pid) is not None
        except ChildProcessError:
            # That of another parent is that one's to reap.
            return True

    def _consider(
        self, os_pid: int, members: Members, belongs: Callable[[OsProcess], bool]
    ) -> bool:
        """Pin a process and add it, if it belongs; whether it is new."""
        process = pin_if(os_pid, members, belongs)
        if process is not None:
            self._keep(process)
        elif os_pid not in members and os_pid != self.os_pid:
            # It is gone by now, or its parent is.
            self.has_lost_sight = True
        return process is not None

    def _keep(self, member: OsProcess) -> None:
        """See to it that a member is known when it has come to us as an orphan."""
        if self.mark is None or member.os_pid == self.os_pid:
            return
        self._remember(self, member)
        # It may have been forked before its parent was marked, or have shed that. Dead, it could
        # not be told. Other marks are those of hosts within this tree, who need them.
        tag_untagged(member.os_pid, self.mark.tag)
        if not self.mark.is_worn_by(member.os_pid):
            mark_from_outside(member.os_pid, self.mark.worn)
        if self.cgroup is not None and not self.cgroup.has(member.os_pid):
            self.was_outside = True
            self.cgroup.add(member.os_pid)

    def _is_inside(self, process: OsProcess) -> bool:
        return self.cgroup is not None and self.cgroup.has(process.os_pid)

    def has_session(self) -> bool:
        """Whether the session of the leader's pid is the one that it began, if any.

        The kernel gives a pid to nobody as long as a session bears it. Once the session is
        empty and the leader reaped, another process may have the pid, and a session.
        """
        if self.leader.is_there():
            return True
        if self.mark is not None:
            # By then all have been marked.
            return False
        try:
            Descent.of(self.os_pid)
        except ProcessLookupError:
            return True
        return False


def _is_child(parent: OsProcess, process: OsProcess) -> bool:
    try:
        return Descent.of(process.os_pid).parent == parent.os_pid and parent.is_there()
    except ProcessLookupError:
        return False


def _was_started_at(start_time: int, process: OsProcess) -> bool:
    return process.start_time == start_time
