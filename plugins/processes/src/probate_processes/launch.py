"""Starting an OS process as the leader of a tree of its own, and containing it."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
from typing import IO, TYPE_CHECKING, Any, Final, final

from probate import OsProcess, ReleaseError
from probate_processes.cgroup import Cgroup
from probate_processes.killing import kill
from probate_processes.limits import limit_tree, set_rlimits
from probate_processes.native import Child
from probate_processes.procfs import (
    MARKER,
    Descent,
    Mark,
    Members,
    close_all,
    last_os_pid,
    set_tag,
)
from probate_processes.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from probate import ResourceLimits
    from probate.process import Argument
    from probate_processes.limits import Rlimits
    from probate_processes.native import Native
    from probate_processes.treeregistry import TreeRegistry

#: How often those are looked for who were forked before their parent was contained.
_CONTAIN_PASSES: Final = 8

Stdio = int | IO[Any] | None


@final
class _ContainedPopen(subprocess.Popen[bytes]):
    """Tags, limits and contains the process as soon as its pid is known, before it executes.

    Otherwise the program could have left orphans by then that shed everything else. A parent
    that calls vfork(2) sleeps until its child executes, and wakes up too late; fork(2) costs more
    time in a host with much memory. Popen calls fork whenever it is to set a group, such as the
    one that there is already.
    """

    def __init__(
        self,
        tag: int,
        cgroup: Cgroup | None,
        rlimits: Rlimits,
        argv: Sequence[str | bytes],
        **options: Any,
    ) -> None:
        self._tag = tag
        self._cgroup = cgroup
        self._rlimits = rlimits
        self.is_contained = False
        self._os_pid = 0
        has_one_group = os.getgid() == os.getegid()
        super().__init__(argv, group=os.getegid() if has_one_group else None, **options)

    @property
    def pid(self) -> int:
        """As of Popen; None at first."""
        return self._os_pid

    @pid.setter
    def pid(self, os_pid: int | None) -> None:
        if os_pid:
            set_tag(os_pid, self._tag)
            self._os_pid = os_pid
            # What fails now is tried again, and raised, when the process can be undone.
            with contextlib.suppress(OSError, ValueError):
                set_rlimits(os_pid, self._rlimits)
            # It has its files to close, and its program to open: that takes as long.
            self.is_contained = self._cgroup is None or self._cgroup.add(os_pid)


def launch(
    trees: TreeRegistry,
    argv: Sequence[Argument],
    *,
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str] | None,
    pass_fds: Sequence[int],
    limits: ResourceLimits | None,
) -> Tree:
    """Start a program in a session of its own, marked, contained, limited; or leave nothing.

    Raises OSError if it cannot be executed, ValueError for limits that cannot be enforced.
    """
    for stream in (stdin, stdout, stderr):
        if stream is not None and not isinstance(stream, int):
            # Popen asks too late: before Python 3.11.4 what it has opened by then stays open.
            stream.fileno()
    mark = Mark.new()
    with contextlib.ExitStack() as undo:
        trees.open()
        undo.callback(trees.close)
        cgroup = _create_cgroup(undo)
        rlimits = limit_tree(limits, cgroup)
        popen = _ContainedPopen(
            mark.tag,
            cgroup,
            rlimits,
            [os.fspath(argument) for argument in argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=_marked(os.environ if env is None else env, mark.token),
            pass_fds=pass_fds,
            start_new_session=True,
        )
        try:
            set_rlimits(popen.pid, rlimits)
            leader = OsProcess.open(popen.pid)
        except BaseException:
            popen.kill()
            popen.wait()
            raise
        tree = Tree(Child(popen, argv, leader), leader, cgroup, mark)
        undo.callback(_undo, tree, trees, popen)
        contain(tree, trees, has_leader=popen.is_contained)
        trees.add(tree)
        undo.pop_all()
    return tree


def adopt_tree(trees: TreeRegistry, native: Native) -> Tree:
    """Make a tree of a process that was started elsewhere.

    It is marked, and can be contained, if it is a child of this host. Raises ProcessLookupError
    if it is gone, ValueError if it leads a tree.
    """
    with contextlib.ExitStack() as undo:
        trees.open()
        undo.callback(trees.close)
        leader = OsProcess.open(native.os_pid)
        undo.callback(leader.close)
        mark: Mark | None = None
        cgroup: Cgroup | None = None
        # A stranger's limits and cgroup are not ours to change.
        if Descent.of(leader.os_pid).parent == os.getpid():
            mark = Mark.new()
            cgroup = _create_cgroup(undo)
        elif native.is_child:
            # It was reaped, and its pid given to another, before its object learned of it.
            raise ProcessLookupError(errno.ESRCH, f"no child {leader.os_pid}")
        tree = Tree(native, leader, cgroup, mark)
        trees.add(tree)
        if mark is not None:
            # Not before: whom another tree owns keeps its tag.
            set_tag(leader.os_pid, mark.tag)
        undo.pop_all()
    return tree


def contain(tree: Tree, trees: TreeRegistry, *, has_leader: bool = False) -> None:
    """Mark the members of a tree, and move them into its cgroup, if it has one.

    With `has_leader`, that one is inside already. What they fork from then on is born inside;
    those that were forked just before are looked for until all are inside. One that forks outside
    of it faster than that is still found by its descent, session and marks.
    """
    cgroup = tree.cgroup
    if not has_leader:
        has_leader = cgroup is None or cgroup.add(tree.os_pid)
    if has_leader and last_os_pid() == tree.os_pid:
        # Nobody has been forked since, by whomever.
        return
    members: Members = {}
    try:
        for _ in range(_CONTAIN_PASSES):
            tree.scan(members, trees.unclaimed_children)
            if cgroup is None:
                break
            outside = [
                member
                for member in members.values()
                if not member.has_exited() and not cgroup.has(member.os_pid)
            ]
            if not outside:
                break
            for member in outside:
                cgroup.add(member.os_pid)
    finally:
        close_all(members)


def _create_cgroup(undo: contextlib.ExitStack) -> Cgroup | None:
    cgroup = Cgroup.create()
    if cgroup is not None:
        undo.callback(cgroup.remove)
    return cgroup


def _undo(tree: Tree, trees: TreeRegistry, popen: subprocess.Popen[bytes]) -> None:
    """End what was just started; also where descriptors are short, which may be the reason."""
    for pipe in (popen.stdin, popen.stdout, popen.stderr):
        if pipe is not None:
            pipe.close()
    # By the pidfd that there is: to look for descendants takes more.
    tree.leader.send_signal(signal.SIGKILL)
    with contextlib.suppress(OSError, ReleaseError):
        kill(tree, trees.unclaimed_children)
    exited = select.poll()
    exited.register(tree.leader.fileno(), select.POLLIN)
    exited.poll()
    tree.native.record_exit(tree.leader)
    tree.native.reap(tree.leader)
    tree.leader.close()


def _marked(env: Mapping[str, str], token: bytes) -> dict[str, str]:
    """The environment with the marker added to those of trees that this host is itself in."""
    outer = env.get(MARKER) or os.environ.get(MARKER)
    return {**env, MARKER: f"{outer}:{token.decode()}" if outer else token.decode()}
