"""Moving a tree into its cgroup, and seeing that all of it is inside."""

from __future__ import annotations

import _queue
import _thread
import logging
import threading
from typing import TYPE_CHECKING, Final, final

from probate import forget_in_forked_child
from probate_processes.killing import reap
from probate_processes.launcher import start_new_thread
from probate_processes.procfs import Members, close_all, last_os_pid
from probate_processes.threadmarks import block_all_signals, name_thread

if TYPE_CHECKING:
    from probate_processes.tree import Tree
    from probate_processes.treeregistry import TreeRegistry

    #: A tree to be contained, or a lock to be released by then. Not of `threading`, which gevent
    #: and others replace.
    _Task = tuple[Tree, TreeRegistry] | _thread.LockType

logger = logging.getLogger("probate")

#: As the kernel has it, for whoever looks at the threads of a host.
THREAD_NAME: Final = b"probate-contain"

#: How often those are looked for who were forked before their parent was contained.
_PASSES: Final = 8
#: So many passes without anybody outside prove that nobody is.
_CLEAN_PASSES: Final = 2

#: Seconds that whoever waits for the thread waits at most.
_PATIENCE: Final = 5.0


def contain(tree: Tree, trees: TreeRegistry, *, has_leader: bool = False) -> None:
    """Move the members of a tree into its cgroup, if it has one, and see that all are inside.

    With `has_leader`, that one was inside from its first moments on. What is forked inside is born
    inside; those that were forked just before are looked for until nobody new turns up outside,
    alive or dead. One that forks outside of it faster than that is moved whenever it is looked at,
    and marked anyway.
    """
    cgroup = tree.cgroup
    if not has_leader:
        has_leader = cgroup is None or (tree.leader.is_there() and cgroup.add(tree.os_pid))
    if has_leader and last_os_pid() == tree.os_pid:
        # Nobody has been forked since, by whomever.
        return
    members: Members = {}
    clean = 0
    try:
        for _ in range(_PASSES):
            tree.was_outside = False
            tree.scan(members, trees.unclaimed_children)
            # Whoever dies outside may have left somebody there.
            reap(tree, members)
            clean = 0 if tree.was_outside else clean + 1
            if cgroup is None or clean == _CLEAN_PASSES:
                break
    finally:
        close_all(members)


@final
class LateContainment:
    """Contains trees that have been started, one after another on a thread of its own.

    Their cgroups are made there, too. To move a process, the kernel waits until no processor is in
    the midst of a fork or an exit any more, which takes it up to some ten milliseconds
    (`cgroup_threadgroup_rwsem`). No spawn waits for that: a tree that was marked at its birth is
    known by that until it is contained.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._queue: _queue.SimpleQueue[_Task] | None = None
        forget_in_forked_child(self)

    def contain(self, tree: Tree, trees: TreeRegistry) -> None:
        """Have a tree contained soon; at once, where no thread can be started."""
        with self._lock:
            if self._queue is None:
                queue: _queue.SimpleQueue[_Task] = _queue.SimpleQueue()
                try:
                    start_new_thread(_serve, (queue,))
                except RuntimeError:
                    contain(tree, trees)
                    return
                self._queue = queue
        self._queue.put((tree, trees))

    def join(self) -> None:
        """Wait until all are contained, or over, that were to be by now."""
        if self._queue is not None:
            is_served = _thread.allocate_lock()
            is_served.acquire()
            self._queue.put(is_served)
            is_served.acquire(timeout=_PATIENCE)

    def forget_parent(self) -> None:
        """Have no thread, in a forked child."""
        self._lock = threading.RLock()
        self._queue = None


def _serve(queue: _queue.SimpleQueue[_Task]) -> None:
    block_all_signals()
    name_thread(THREAD_NAME)
    while True:
        task = queue.get()
        if isinstance(task, tuple):
            _contain_living(*task)
        else:
            task.release()
        del task


def _contain_living(tree: Tree, trees: TreeRegistry) -> None:
    # Whoever kills it comes before or after, and removes the cgroup.
    with tree.killing:
        if tree.is_over or tree.cgroup is None or not tree.cgroup.make():
            return
        try:
            contain(tree, trees)
        except Exception:
            # Where descriptors are short, its marks must do.
            logger.warning("%r is not contained in its cgroup", tree, exc_info=True)
        _remove_if_over(tree)


def _remove_if_over(tree: Tree) -> None:
    """Remove the cgroup of a tree that has ended by itself while somebody was moved there."""
    if tree.is_over and tree.cgroup is not None:
        tree.cgroup.remove()


#: Of this interpreter, shared by all managers.
late_containment: Final = LateContainment()
