"""What a dead host has left of a tree: found among all processes, and killed."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from probate import Outcome, RefusedResourceError
from probate.journal import Named, boot_id, is_process_dead, pid_namespace
from probate.system import Arrivals, tag_of
from probate_processes.cgroup import Cgroup
from probate_processes.killing import kill
from probate_processes.marks import tokens_of
from probate_processes.procfs import (
    Descent,
    cgroup_of,
    check_proc,
    close_all,
    is_ancestor,
    pin_if,
    start_time_of_host,
)
from probate_processes.sharedmemory import SharedFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from probate import OsProcess, ResourceRecord
    from probate.journal import Notice
    from probate_processes.marks import Mark
    from probate_processes.procfs import Members
    from probate_processes.stopping import Stopping
    from probate_processes.tree import Tree


def named(what: str, home: str | None, mark: Mark | None = None) -> Named[Tree]:
    """How a tree will be found, for the journal: one that is about to be started has its mark.

    `home` is the cgroup of this host.
    """
    before = {
        "host_cgroup": home,
        "host_start": start_time_of_host(os.getpid()),
        "pid_namespace": pid_namespace(),
    }
    return Named(f"OS process {what}", before | _marks_of(mark), _identity_of)


def _marks_of(mark: Mark | None) -> dict[str, Any]:
    return {} if mark is None else {"token": mark.token.decode(), "tag": mark.tag}


def _identity_of(tree: Tree) -> dict[str, Any]:
    """What is known of a tree when its leader has been started, or adopted."""
    cgroup = tree.cgroup
    return {
        "pid": tree.os_pid,
        "start": tree.leader.start_time,
        "cgroup": None if cgroup is None else [cgroup.folder, cgroup.path],
        **_marks_of(tree.mark),
    }


def noticed(notice: Notice) -> ResourceRecord | None:
    """Say of a supervised process what it is: its command, or one that has left the session."""
    if notice.call not in ("exec", "setsid"):
        return None
    found = notice._replace(identity={"host_cgroup": None, "host_start": 0, **notice.identity})
    return found.record("processes", f"OS process {notice.os_pid} {notice.name}".rstrip())


def reclaim(record: ResourceRecord, dry_run: bool) -> Outcome:
    """Kill all of a tree whose host is dead; ALREADY_GONE if nobody of it lives.

    Raises RefusedResourceError where its processes are not seen from here, and what `kill` raises.
    """
    check_proc()
    if record.identity["boot"] != boot_id():
        return Outcome.ALREADY_GONE
    if record.identity["pid_namespace"] != pid_namespace():
        if is_process_dead(record.identity.get("init")):
            return Outcome.ALREADY_GONE
        raise RefusedResourceError("it is of another pid namespace, which is not seen from here")
    remains = Remains(record.os_pid, record.identity)
    if dry_run:
        members: Members = {}
        try:
            remains.scan(members)
            has_lived = any(not member.has_exited() for member in members.values())
        finally:
            close_all(members)
    else:
        has_lived = kill(remains, None)
        if remains.cgroup is not None:
            remains.cgroup.remove()
    return Outcome.RELEASED if has_lived else Outcome.ALREADY_GONE


@final
class Remains:
    """The processes of a tree whose host is dead.

    They are told by the tag that they inherit, which no other tree has; by the cgroup, which is of
    the tree alone; by their parents; the leader by its start time. One that has shed its tag, and
    has come to init as an orphan, by the word in its environment; but that may be carried to
    others, which whoever starts services has started. So it counts only within the cgroup that
    the host was in.
    """

    def __init__(self, host: int, identity: Mapping[str, Any]) -> None:
        # A stranger that was adopted has no marks.
        self._token = identity.get("token", "").encode()
        self._tag: int | None = identity.get("tag")
        self._leader = identity.get("pid"), identity.get("start")
        self._host_cgroup = identity["host_cgroup"]
        self.cgroup: Cgroup | None = None
        if (found := identity.get("cgroup")) is not None:
            folder, path = Path(found[0]), found[1]
            # As this host names those of its trees, and as nobody else is named.
            prefix = f"probate-{host}-{identity['host_start']}-"
            if folder.name.startswith(prefix) and folder.is_dir():
                self.cgroup = Cgroup(str(folder), path)
        #: Nobody has been asked to stop: the time for that is over.
        self.stopping: Stopping | None = None
        self.has_lost_sight = False
        self.shared_files = SharedFiles()

    def __repr__(self) -> str:
        return f"tree of OS process {self._leader[0]}"

    def scan(self, members: Members, _: object = None) -> bool:
        """Find and pin those members that are not known yet; whether there were any.

        If one has come during the look, that is said at once: the next moment it may have exited.
        """
        known = len(members)
        everyone: dict[int, Descent] = {}
        arrivals = Arrivals()
        for os_pids in arrivals:
            inside = set() if self.cgroup is None else set(self.cgroup.members())
            for os_pid in os_pids:
                try:
                    everyone[os_pid] = descent = Descent.of(os_pid)
                except ProcessLookupError:
                    continue
                arrivals.saw(1)
                if arrivals.have_come:
                    # One that came and went may have left a child.
                    self.has_lost_sight |= descent.is_zombie and self._has_tag(os_pid)
                if os_pid in inside or self._is_told(os_pid, descent):
                    pin_if(os_pid, members, partial(self._is_marked, inside))
                    # It has exited since.
                    self.has_lost_sight |= os_pid not in members
            # Now: when their parents are killed, they may be nobody's.
            self._add_children(members, everyone)
            if arrivals.have_come and len(members) > known:
                return True
        self.has_lost_sight |= not arrivals.are_told
        return len(members) > known

    def _add_children(self, members: Members, everyone: dict[int, Descent]) -> None:
        queue = list(members)
        while queue:
            parent = queue.pop()
            for os_pid, descent in everyone.items():
                if (
                    descent.parent == parent
                    and os_pid not in members
                    and pin_if(os_pid, members, lambda process: _is_child_of(process, members))
                ):
                    queue.append(os_pid)

    def reap(self, _: OsProcess) -> bool:
        """They are not our children: whoever has them reaps them."""
        return True

    def _is_marked(self, inside: set[int], process: OsProcess) -> bool:
        if process.os_pid in inside:
            return self.cgroup is not None and self.cgroup.has(process.os_pid)
        return self._is_told(process.os_pid, Descent.of(process.os_pid))

    def _has_tag(self, os_pid: int) -> bool:
        return self._tag is not None and tag_of(os_pid) == self._tag

    def _is_told(self, os_pid: int, descent: Descent) -> bool:
        if os_pid == os.getpid() or descent.is_zombie:
            return False
        if (os_pid, descent.start_time) == self._leader:
            return not is_ancestor(os_pid)
        if self._has_tag(os_pid):
            return not is_ancestor(os_pid)
        return (
            (descent.parent == 1 or is_ancestor(descent.parent))
            and self._token in tokens_of(os_pid)
            and _is_within(cgroup_of(os_pid), self._host_cgroup)
            and not is_ancestor(os_pid)
        )


def _is_child_of(process: OsProcess, members: Members) -> bool:
    parent = members.get(Descent.of(process.os_pid).parent)
    return parent is not None and parent.is_there()


def _is_within(cgroup: str | None, of_host: str | None) -> bool:
    if cgroup is None or of_host is None:
        return cgroup is of_host
    return cgroup == of_host or cgroup.startswith(f"{of_host.rstrip('/')}/")
