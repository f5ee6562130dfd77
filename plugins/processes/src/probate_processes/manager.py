"""The manager of OS processes: spawns them, adopts them, and ends them with all descendants."""

from __future__ import annotations

import contextlib
import os
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Final, Unpack, final

from probate import (
    AlreadyOwnedError,
    NotOwnedError,
    Outcome,
    OwnershipTable,
    ProcessTerminatedError,
    current_grace,
    pid_or_current,
)
from probate.errors import describe_error
from probate.process import checked_argv
from probate.system import Elsewhere, death_watch
from probate_processes import accounting, remains
from probate_processes.containment import contain, late_containment
from probate_processes.killing import NotPermittedError, kill, reap, reap_if_deserted
from probate_processes.launch import Start, Stdio, adopt_tree
from probate_processes.native import Child, native_of
from probate_processes.options import checked_options
from probate_processes.procfs import Members, cgroup_of, close_all, is_ancestor
from probate_processes.stopping import Stopping, checked_stop
from probate_processes.treeregistry import TreeRegistry

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Mapping, Sequence

    from probate import ResourceId, ResourceLimits, ResourceUsage
    from probate.process import Argument, Observation, PopenOptions
    from probate_processes.native import Native
    from probate_processes.stopping import Stop
    from probate_processes.tree import Tree, UnclaimedChildren

#: Seconds between two looks at a tree whose end nobody announces, at most.
_PAUSE: Final = 1.0

#: How many processes the description of a tree names.
_NAMED: Final = 3


@final
class ProcessTreeManager:
    """Spawns OS processes that belong to a process, and ends them to the last descendant.

    Every method takes the owner's pid first; within `with manager.process(...)` it may be left
    out. `ProcessManager.spawn` makes a process of its own for each; `spawn` here adds to one.

    All raise ProcessTerminatedError, ProcessNotFoundError or ResourceLimitExceeded before
    anything is started, and PidfdUnavailableError where the kernel has no pidfds.
    """

    def __init__(self) -> None:
        self._trees = TreeRegistry()
        #: Who owns which trees.
        self.table = OwnershipTable(
            "processes",
            self._release,
            describe=self._describe,
            identity=lambda tree: tree.native.identity,
            descriptors=lambda tree: tree.descriptors,
        )

    @pid_or_current
    def spawn(
        self,
        pid: int,
        argv: Sequence[Argument],
        *,
        stdin: Stdio = subprocess.DEVNULL,
        stdout: Stdio = None,
        stderr: Stdio = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        limits: ResourceLimits | None = None,
        stop: Stop = "leader",
        observation: Observation | None = None,
        **options: Unpack[PopenOptions],
    ) -> Child:
        """Start a program as the leader of a session of its own; all else as subprocess.Popen.

        `limits.cpu`, `limits.memory` and `limits.pids` hold for it. When its owner ends, it is
        asked to stop first, and what descends from it when it is gone, or half of the grace is
        over; with `stop="tree"` all are asked at once. With an `observation`, what it makes by
        name is given back when its owner ends. Raises TypeError or ValueError for a bad argv, for
        options that are refused and for limits that nothing here would enforce, OSError if the
        program cannot be executed, ObservationUnavailableError if nobody may look on; nothing is
        left behind then.
        """
        checked, asks_all = checked_argv(argv), checked_stop(stop) == "tree"
        popen_options = checked_options(options)

        popen_options |= {
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
            "cwd": cwd,
            "env": env,
            "pass_fds": pass_fds,
        }
        start = Start(self._trees, checked, limits, popen_options, observation)

        def book(tree: Tree) -> None:
            tree.owner, tree.asks_all = pid, asks_all
            self._watch(tree)

        named = (
            remains.named(start.name, start.home, start.mark) if self.table.keeps_journal else None
        )
        try:
            tree = self.table.acquire(pid, lambda: start.run(book), named=named)
        except BaseException as error:
            self._undo(start, error)
            raise
        start.contain()
        if tree.is_over and observation is None:
            # By itself, before it was owned.
            self._discard(tree)
        return tree.native  # type: ignore[return-value]  # what make has made

    @pid_or_current
    def close(self, pid: int, process: object) -> None:
        """Kill a process of this owner, at once, with all that descends from it.

        `process` is what `spawn` returned, or what was adopted. Raises NotOwnedError if it is
        another's, or not owned any more, NotPermittedError for members of another user, who are
        let go of. What raises ReleaseTimeoutError or BusyResourceError stays owned.
        """
        self.table.give_back(pid, process)

    #: The field's word for it.
    kill = close

    @pid_or_current
    def members(self, pid: int, process: object) -> list[int]:
        """List the OS pids of a process and all that descend from it, at this moment.

        Raises NotOwnedError if it is another's.
        """
        tree = self.table.get(pid, self.table.find(pid, process))
        return self._living(tree, self._trees.unclaimed_children)

    def join_if_idle(self) -> None:
        """Wait until nothing goes on that a start has begun: for a process manager that closes."""
        late_containment.join()

    # -- the kind's hooks ----------------------------------------------------

    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        """Own an OS process that was started elsewhere, with its descendants.

        Takes subprocess.Popen, psutil.Popen, psutil.Process, multiprocessing.Process and
        asyncio.subprocess.Process; returns None for anything else. Raises ValueError for one that
        has ended, is owned already by another object, or is this host or one of its ancestors:
        that is left as it was.
        """
        self.table.check_admitted(pid)
        native = native_of(resource)
        if native is None:
            return None
        if is_ancestor(native.os_pid):
            raise ValueError(
                f"OS process {native.os_pid} is this host or an ancestor of it, and cannot be owned"
            )
        self._refuse_owned(native)

        def make() -> Tree:
            try:
                tree = adopt_tree(self._trees, native)
            except ProcessLookupError:
                raise ValueError(f"it has ended, so it cannot be adopted: {resource!r}") from None
            tree.owner = pid
            try:
                # Once more, now that it is pinned: it may have ended just before.
                native_of(resource)
            except BaseException:
                self._abandon(tree)
                raise
            return tree

        home = cgroup_of(os.getpid())
        named = remains.named(repr(native), home) if self.table.keeps_journal else None
        tree = self.table.acquire(pid, make, self._abandon, named=named)
        try:
            resource_id = self.table.find(pid, resource)
        except NotOwnedError:
            # Its owner has been ended in between, and so has it.
            raise ProcessTerminatedError(pid) from None
        try:
            self._watch(tree)
        except BaseException:
            self.table.release(pid, resource_id)
            self._abandon(tree)
            raise
        with tree.lock, contextlib.suppress(OSError):
            # Only now that it is ours. Where descriptors are short, its descent must do.
            if not (tree.is_over or tree.is_being_killed):
                contain(tree, self._trees)
        return resource_id

    def quiesce(self, pid: int) -> list[concurrent.futures.Future[None]]:
        """Ask all trees of `pid` to stop; return what is done when each has.

        Where they get no time to, nobody is asked.
        """
        futures: list[concurrent.futures.Future[None]] = []
        if (grace := current_grace()) == 0:
            return futures
        for _, tree in self.table.owned(pid):
            with tree.lock:
                if tree.is_over:
                    continue
                tree.is_asked = True
                if tree.stopping is not None:
                    close_all(tree.stopping.hand_over())
                scan = partial(tree.scan, unclaimed_children=self._trees.unclaimed_children)
                stopping = Stopping(tree.leader, scan, tree.reap, asks_all=tree.asks_all)
                tree.stopping = stopping
                stopping.ask(grace)
            futures.append(stopping.stopped)
        return futures

    def usage(self, pid: int) -> ResourceUsage:
        """Account for the OS processes of `pid`, and what they and their descendants use."""
        living: list[int] = []
        for _, tree in self.table.owned(pid):
            living += self._living(tree, self._trees.recent_unclaimed_children)
        over = {number for number, tree in self.table.owned(pid) if tree.is_over_but_for_names}
        return accounting.usage_without(over, self.table.usage(pid), accounting.os_usage(living))

    # -- inside --------------------------------------------------------------

    def _undo(self, start: Start, error: BaseException) -> None:
        """End what was started, whatever falls in meanwhile; note on `error` what could not be."""

        def end() -> None:
            try:
                if (tree := start.tree) is not None and not tree.is_over:
                    self._release(tree)
                    self._discard(tree)
            finally:
                start.undo()

        try:
            Elsewhere(end).result()
        except Exception as failure:
            error.add_note(f"not all that was started could be ended: {describe_error(failure)}")

    def _watch(self, tree: Tree) -> None:
        """Be told when the leader dies; at once, if it is dead already."""
        self._trees.reap_orphans()
        with tree.lock:
            if tree.is_over:
                return
            is_reaped = tree.leader.fileno() < 0
            if not is_reaped:
                death_watch.watch(tree.leader.fileno(), partial(self._leader_exited, tree))
        if is_reaped:
            # By somebody else, before it could be pinned.
            self._leader_exited(tree, is_watched=False)

    def _leader_exited(self, tree: Tree, *, is_watched: bool = True) -> None:
        """Take note of a leader's death, on the watch's thread: nobody here waits for processes."""
        death_round = death_watch.round if is_watched else None
        with tree.lock:
            if tree.is_over or tree.is_being_killed:
                return
            self._trees.expect_exit(tree)
            if not (tree.leader.has_exited() and tree.reap(tree.leader)):
                # It does not end when it is killed, or whoever traces it has not waited for it yet:
                # until then it is not over, and nobody knows how it ended.
                self._look_later(tree)
                return
            tree.native.record_exit(tree.leader)
            is_deserted = reap_if_deserted(tree, self._trees, death_round)
            if is_deserted:
                tree.untold = self._trees.untold_then()
                self._finish(tree)
                is_quiet = not (tree.is_asked or tree.untold or tree.observation)
                if is_quiet or tree.has_outlived_kill:
                    # Over without our doing: there is nothing to account for.
                    self._discard(tree)
            elif is_deserted is None or tree.has_outlived_kill:
                self._look_later(tree)
        tree.native.resolve_exited()
        self._trees.reap_orphans(death_round)

    def _release(self, tree: Tree) -> Outcome:
        with tree.killing:
            with tree.lock:
                tree.is_being_killed = not tree.is_over
                if tree.is_being_killed:
                    self._trees.expect_exit(tree)
            if tree.is_being_killed:
                try:
                    tree.is_asked |= kill(tree, self._trees.unclaimed_children)
                except BaseException as error:
                    self._kill_failed(tree)
                    if isinstance(error, NotPermittedError):
                        # No later try would be any better.
                        accounting.note_shared_files(tree)
                        accounting.note_observed(tree)
                        self._abandon(tree)
                    raise
                accounting.note_shared_files(tree)
                tree.untold = self._trees.untold()
                with tree.lock:
                    self._finish(tree)
                tree.native.resolve_exited()
        accounting.note_untold(tree)
        accounting.note_observed(tree)
        return Outcome.RELEASED if tree.is_asked else Outcome.ALREADY_GONE

    def _kill_failed(self, tree: Tree) -> None:
        """Tell of the leader's death, if it was killed although not all could be."""
        with tree.lock:
            tree.is_being_killed = False
            tree.is_asked = tree.has_outlived_kill = True
            has_exited = tree.leader.has_exited() and tree.reap(tree.leader)
            if has_exited:
                tree.native.record_exit(tree.leader)
            self._look_later(tree)
        if has_exited:
            tree.native.resolve_exited()

    def _look_later(self, tree: Tree) -> None:
        """Look at a tree again, whose end the kernel announces to nobody. Its lock is held."""
        if tree.timer is not None:
            death_watch.cancel(tree.timer)
        # Where there are no descriptors, its owner's end looks at it.
        with contextlib.suppress(OSError):
            tree.timer = death_watch.call_later(tree.pause, partial(self._leader_exited, tree))
        tree.pause = min(2 * tree.pause, _PAUSE)

    def _finish(self, tree: Tree) -> None:
        """Reap the leader, since nobody else is left, and let go. The tree's lock is held."""
        tree.native.record_exit(tree.leader)
        tree.native.reap(tree.leader)
        self._let_go(tree)

    def _let_go(self, tree: Tree) -> None:
        tree.is_over, tree.is_being_killed = True, False
        if tree.stopping is not None:
            members = tree.stopping.hand_over()
            reap(tree, members)
            close_all(members)
        death_watch.forget(tree.leader.fileno())
        if tree.timer is not None:
            death_watch.cancel(tree.timer)
        tree.leader.close()
        if tree.cgroup is not None:
            tree.cgroup.remove()
        self._trees.discard(tree)

    def _abandon(self, tree: Tree) -> None:
        """Let go of a tree that is not to be ours, and leave its processes as they are."""
        with tree.lock:
            self._let_go(tree)

    def _refuse_owned(self, native: Native) -> None:
        owner = self.table.owner_of(native.identity)
        if owner is not None:
            raise AlreadyOwnedError(self.table.kind, repr(native), owner)

    def _discard(self, tree: Tree) -> None:
        """End the ownership, whoever has it."""
        self.table.disown(tree.owner, tree.native.identity)

    def _describe(self, tree: Tree) -> str:
        """Name a tree by its leader; if that is gone, by those who live."""
        if not tree.leader.has_exited():
            return repr(tree)
        with contextlib.suppress(OSError):
            living = self._living(tree, self._trees.recent_unclaimed_children)
            names = [accounting.describe(os_pid) for os_pid in living[:_NAMED]]
            if len(living) > _NAMED:
                names.append(f"{len(living) - _NAMED} more")
            if names:
                word = "process" if len(living) == 1 else "processes"
                return f"OS {word} {'; '.join(names)}, left by {tree.native!r}"
        return repr(tree)

    def _living(self, tree: Tree, unclaimed_children: UnclaimedChildren) -> list[int]:
        self._trees.reap_orphans()
        members: Members = {}
        try:
            tree.scan(members, unclaimed_children)
            return [os_pid for os_pid, member in members.items() if not member.has_exited()]
        finally:
            close_all(members)
