"""Starting an OS process as the leader of a tree of its own, and containing it."""

from __future__ import annotations

import itertools
import os
import subprocess
from typing import IO, TYPE_CHECKING, Any, Final

from probate import OsProcess
from probate.process.osprocess import start_time_of
from probate_processes.cgroup import Cgroup
from probate_processes.killing import kill
from probate_processes.limits import limit_tree, set_rlimits
from probate_processes.native import Child
from probate_processes.procfs import MARKER, Descent
from probate_processes.tree import Members, Tree, close_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from probate import ResourceLimits
    from probate.process.spawning import Argument
    from probate_processes.forest import Forest
    from probate_processes.native import Native

_numbers: Final = itertools.count(1)

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
    token = f"{os.getpid()}-{start_time_of(os.getpid())}-{next(_numbers)}"
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
            env=_marked(os.environ if env is None else env, token),
            pass_fds=pass_fds,
            start_new_session=True,
        )
        try:
            leader = OsProcess.open(popen.pid)
        except BaseException:
            popen.kill()
            popen.wait()
            raise
        # As early as can be: it has just been executed, and is being linked.
        set_rlimits(leader, rlimits)
        child = Child(popen, argv, leader)
        tree = Tree(child, leader, cgroup, token)
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
            # A stranger's cgroup is not ours to change: its service manager relies on it.
            if Descent.of(leader.os_pid).parent == os.getpid():
                cgroup = Cgroup.create()
            tree = Tree(native, leader, cgroup, None)
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
    """Move a tree into its cgroup: whatever its members fork from then on is born inside.

    Those who were forked before are looked for until all are inside. One that keeps forking
    outside of it, faster than that, is still found by its descent, session and marker.
    """
    cgroup = tree.cgroup
    if cgroup is None:
        return
    cgroup.add(tree.os_pid)
    members: Members = {}
    try:
        while tree.scan(members, forest.strangers):
            for member in members.values():
                if not member.has_exited() and not cgroup.has(member.os_pid):
                    cgroup.add(member.os_pid)
    finally:
        close_all(members)


def _marked(env: Mapping[str, str], token: str) -> dict[str, str]:
    """The environment with the marker added to those of trees that this host is itself in."""
    outer = env.get(MARKER) or os.environ.get(MARKER)
    return {**env, MARKER: f"{outer}:{token}" if outer else token}
