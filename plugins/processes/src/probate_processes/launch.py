"""Starting an OS process as the leader of a tree of its own, and containing it."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final, final

from probate import OsProcess
from probate.system import Elsewhere, give_back, open_pidfds, set_tag
from probate_processes.birth import Birth
from probate_processes.cgroup import Cgroup
from probate_processes.containment import contain, late_containment
from probate_processes.killing import kill
from probate_processes.launcher import Caller, launchers
from probate_processes.limits import limit_tree
from probate_processes.marks import MARKER, Mark
from probate_processes.native import Child
from probate_processes.plain import STREAMS, own_environment
from probate_processes.procfs import Descent, cgroup_of, check_proc, is_descendant, pin
from probate_processes.threadmarks import mark_from_outside
from probate_processes.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from probate import ResourceLimits
    from probate.process import Argument, Observation
    from probate_processes.launcher import Launcher
    from probate_processes.native import Native
    from probate_processes.treeregistry import TreeRegistry

#: Descriptors that are kept free, for a start that is to be undone.
_RESERVED: Final = 3

_MARKER: Final = MARKER.encode()

Stdio = int | IO[Any] | None


@final
class Start:
    """Starts one program as the leader of a tree; or ends all that it has started by then.

    It has a session of its own, is marked, contained and limited. Used once; whatever exception
    comes, `undo` leaves nothing of it.
    """

    def __init__(
        self,
        trees: TreeRegistry,
        argv: Sequence[Argument],
        limits: ResourceLimits | None,
        options: Mapping[str, Any],
        observation: Observation | None = None,
    ) -> None:
        self._trees = trees
        self._observation = observation
        self._argv = argv
        #: How accounts name it.
        self.name = repr(argv[0])
        self._limits = limits
        self._options = options
        self._cgroup: Cgroup | None = None
        self._birth: Birth | None = None
        self._reserved: list[int] = []
        self._is_to_be_contained = False
        #: The cgroup of this host.
        self.home = cgroup_of(os.getpid())
        # To know what holds here, there must be a thread that has tried.
        launchers.first()
        #: What all of it is marked with.
        self.mark = Mark.new(launchers.marks())
        #: The tree, once it is known to the registry.
        self.tree: Tree | None = None

    def run(self, then: Callable[[Tree], object]) -> Tree:
        """Start it, and have `then` called with the tree, where no exception falls in.

        Raises OSError if it cannot be executed, ValueError for a bad limit.
        """
        check_proc()
        if (observation := self._observation) is not None:
            # Where no exception falls in: what is started for it is known to it.
            Elsewhere(lambda: observation.begin(self.mark.tag)).result()
        caller = Caller.here()

        def start(launcher: Launcher | None) -> Tree:
            tree = self._start(launcher, caller)
            then(tree)
            return tree

        def start_if_served(launcher: Launcher) -> Tree | None:
            return start(launcher) if launcher.serves(caller) else None

        # Most often it is the first one; if not, that is seen on its thread, too.
        for find in (launchers.first, partial(launchers.find, caller)):
            launcher = find()
            if launcher is None:
                break
            tree = launcher.call(partial(start_if_served, launcher))
            if tree is not None:
                return tree
        return start(None)

    def _start(self, launcher: Launcher | None, caller: Caller) -> Tree:
        for name in STREAMS:
            stream = self._options.get(name)
            if stream is not None and not isinstance(stream, int):
                # Popen asks too late: before Python 3.11.4 what it has opened then stays open.
                stream.fileno()
        # Raises where there are no pidfds, before anything is started.
        open_pidfds(self._reserved, os.getpid(), _RESERVED)
        self._trees.open(self)
        mark = self.mark
        limits = self._limits
        observation = self._observation
        # Without marks from its birth on it would escape by what it does first.
        is_held = (
            launcher is None
            or observation is not None
            or (limits is not None and any((limits.cpu, limits.memory, limits.pids)))
        )
        self._cgroup = Cgroup.create(self.home)
        if is_held and self._cgroup is not None and not self._cgroup.make():
            self._cgroup = None
        rlimits = limit_tree(limits, self._cgroup)
        look_on = None if observation is None else observation.look_on
        birth = Birth(
            mark, launcher, caller, self._cgroup, rlimits, is_held=is_held, look_on=look_on
        )
        self._birth = birth
        more = {} if observation is None else observation.environment
        options, own = self._options, None
        if (env := options.get("env")) is None:
            own = _own_environment(mark.token, more)
        else:
            options = {**options, "env": _marked({**env, **more}, mark.token)}
        try:
            birth.start([os.fspath(argument) for argument in self._argv], options, own)
        except subprocess.SubprocessError as error:
            if observation is not None:
                observation.check(error)
            raise
        tree = self._book(birth)
        if observation is not None and birth.leader is not None:
            observation.started(tree.os_pid, birth.leader.fileno())
        if birth.leader is None:
            # Somebody else has reaped it, and its pid may be another's by now.
            self._trees.expect_exit(tree)
        if not birth.is_marked:
            contain(tree, self._trees, has_leader=birth.is_contained)
        elif not birth.is_contained:
            self._is_to_be_contained = True
        self._release_reserve()
        return tree

    def contain(self) -> None:
        """Have it contained, if that may take long: when nobody waits for the start any more."""
        if self._is_to_be_contained and self.tree is not None:
            late_containment.contain(self.tree, self._trees)

    def undo(self) -> None:
        """End all that was started. Raises OSError or ReleaseError if not all of it is gone."""
        self._release_reserve()
        birth = self._birth
        try:
            if birth is not None and birth.os_pids:
                self._end(birth)
        finally:
            if self._cgroup is not None:
                self._cgroup.remove()
            self._trees.close(self)
            if self._observation is not None:
                self._observation.close()

    def _book(self, birth: Birth) -> Tree:
        """Make the tree known to the registry."""
        if self.tree is None:
            (os_pid,) = birth.os_pids
            leader = birth.leader
            if leader is None or leader.fileno() < 0:
                leader = pin(os_pid) or OsProcess.gone(os_pid)
            child = Child(birth.popen, self._argv, leader)
            tree = Tree(child, leader, self._cgroup, birth.mark, self, self._trees.remember)
            tree.observation = self._observation
            self._trees.add(tree)
            self.tree = tree
        return self.tree

    def _end(self, birth: Birth) -> None:
        """Kill and reap; where descriptors are short, as far as it goes without."""
        try:
            tree = self._book(birth)
        except BaseException:
            if self._cgroup is not None:
                self._cgroup.kill()
            with contextlib.suppress(ProcessLookupError):
                os.kill(birth.os_pids[0], signal.SIGKILL)
            raise
        with tree.killing:
            if tree.is_over:
                return
            # By the pidfd that there is: to look for descendants takes more.
            tree.leader.send_signal(signal.SIGKILL)
            try:
                kill(tree, self._trees.unclaimed_children)
            finally:
                if tree.leader.fileno() >= 0:
                    exited = select.poll()
                    exited.register(tree.leader.fileno(), select.POLLIN)
                    exited.poll()
                tree.native.record_exit(tree.leader)
                tree.native.reap(tree.leader)
                birth.close_pipes()
                tree.leader.close()
                tree.is_over = True
                self._trees.discard(tree)

    def _release_reserve(self) -> None:
        give_back(self._reserved, len(self._reserved))


def adopt_tree(trees: TreeRegistry, native: Native) -> Tree:
    """Make a tree of a process that was started elsewhere.

    It is marked, and can be contained, if it descends from this host. Raises ProcessLookupError if
    it is gone, ValueError if it leads a tree.
    """
    check_proc()
    with contextlib.ExitStack() as undo:
        trees.open(native)
        undo.callback(trees.close, native)
        leader = OsProcess.open(native.os_pid)
        undo.callback(leader.close)
        mark: Mark | None = None
        cgroup: Cgroup | None = None
        is_child = Descent.of(leader.os_pid).parent == os.getpid()
        if native.is_child and not is_child:
            # It was reaped, and its pid given to another, before its object learned of it.
            raise ProcessLookupError(errno.ESRCH, f"no child {leader.os_pid}")
        # A stranger's limits and cgroup are not ours to change; those of a fork server's are.
        if is_child or is_descendant(leader.os_pid):
            # To know what holds here, there must be a thread that has tried.
            launchers.first()
            mark = Mark.new(launchers.marks())
            cgroup = Cgroup.create(cgroup_of(os.getpid()))
            if cgroup is not None and cgroup.make():
                undo.callback(cgroup.remove)
            else:
                cgroup = None
        tree = Tree(native, leader, cgroup, mark, native, trees.remember)
        trees.add(tree)
        if mark is not None:
            # Not before: whom another tree owns keeps its marks.
            set_tag(leader.os_pid, mark.tag)
            mark_from_outside(leader.os_pid, mark.worn)
        undo.pop_all()
    return tree


def _own_environment(token: bytes, more: Mapping[str, str]) -> list[bytes]:
    """Return the environment of this host, as execve(2) takes it, with the marker added to it.

    And with `more`, instead of what has these names.
    """
    variables, entries = own_environment.entries()
    added = {os.fsencode(name): os.fsencode(value) for name, value in more.items()}
    outer = variables.get(_MARKER)
    added[_MARKER] = b"%b:%b" % (outer, token) if outer else token
    if not variables.keys().isdisjoint(added):
        entries = [b"%b=%b" % each for each in variables.items() if each[0] not in added]
    return [*entries, *[b"%b=%b" % each for each in added.items()]]


def _marked(env: Mapping[str, str], token: bytes) -> dict[str, str]:
    """Return an environment with the marker added to those of trees that this host is itself in."""
    within = env.get(MARKER) or os.environ.get(MARKER)
    return {**env, MARKER: f"{within}:{token.decode()}" if within else token.decode()}
