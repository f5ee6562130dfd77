"""Starting an OS process as the leader of a tree of its own, and containing it."""

from __future__ import annotations

import os
import subprocess
from typing import IO, TYPE_CHECKING, Any, Final

from probate import OsProcess
from probate_processes.cgroup import Cgroup
from probate_processes.killing import kill
from probate_processes.limits import limit_tree, set_rlimits
from probate_processes.native import Child
from probate_processes.procfs import MARKER, Descent, Mark, set_tag
from probate_processes.tree import Members, Tree, close_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from probate import ResourceLimits
    from probate.process.spawning import Argument
    from probate_processes.forest import Forest
    from probate_processes.native import Native

#: How often those are looked for who were forked before their parent was contained.
_CONTAIN_PASSES: Final = 8

Stdio = int | IO[Any] | None


def launch(
    forest: Forest,
    argv: Sequence[Argument],
    *,
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str] | None,
    pass_fds: Sequence[int],
    limits: ResourceLimits | None,
) -> tuple[Tree, Child]:
    """Start a program in a session of its own, marked, contained, limited; or leave nothing.

    Raises OSError if it cannot be executed, ValueError for limits that cannot be enforced.
    """
    mark = Mark.new()
    forest.open()
    cgroup: Cgroup | None = None
    try:
        cgroup = Cgroup.create()
        rlimits = limit_tree(limits, cgroup)
        popen: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603  the caller's program
            [os.fspath(argument) for argument in argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=_marked(os.environ if env is None else env, mark.token),
            pass_fds=pass_fds,
            start_new_session=True,
        )
        # As early as can be: it has just been executed, and is being linked.
        set_tag(popen.pid, mark.tag)
        try:
            leader = OsProcess.open(popen.pid)
        except BaseException:
            popen.kill()
            popen.wait()
            raise
        set_rlimits(leader, rlimits)
        child = Child(popen, argv, leader)
        tree = Tree(child, leader, cgroup, mark)
        try:
            contain(tree, forest)
            forest.add(tree)
        except BaseException:
            kill(tree, forest.strangers)
            child.note_exit(leader)
            child.reap(leader)
            leader.close()
            raise
    except BaseException:
        if cgroup is not None:
            cgroup.remove()
        forest.close()
        raise
    return tree, child


def plant(forest: Forest, native: Native) -> Tree:
    """Make a tree of a process that was started elsewhere.

    It is contained if it is a child of this host. Raises ProcessLookupError if it is gone,
    ValueError if it leads a tree.
    """
    forest.open()
    cgroup: Cgroup | None = None
    try:
        leader = OsProcess.open(native.os_pid)
        try:
            mark: Mark | None = None
            # A stranger's limits and cgroup are not ours to change.
            if Descent.of(leader.os_pid).parent == os.getpid():
                mark = Mark.new()
                set_tag(leader.os_pid, mark.tag)
                cgroup = Cgroup.create()
            tree = Tree(native, leader, cgroup, mark)
            forest.add(tree)
        except BaseException:
            leader.close()
            raise
    except BaseException:
        if cgroup is not None:
            cgroup.remove()
        forest.close()
        raise
    contain(tree, forest)
    return tree


def contain(tree: Tree, forest: Forest) -> None:
    """Mark the members of a tree, and move them into its cgroup, if it has one.

    Whatever they fork from then on is born inside. Those that were forked just before are looked
    for until all are inside. One that keeps forking outside of it, faster than that, is still
    found by its descent, session and marks.
    """
    cgroup = tree.cgroup
    if cgroup is not None:
        cgroup.add(tree.os_pid)
    members: Members = {}
    try:
        for _ in range(_CONTAIN_PASSES):
            tree.scan(members, forest.strangers)
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


def _marked(env: Mapping[str, str], token: str) -> dict[str, str]:
    """The environment with the marker added to those of trees that this host is itself in."""
    outer = env.get(MARKER) or os.environ.get(MARKER)
    return {**env, MARKER: f"{outer}:{token}" if outer else token}
