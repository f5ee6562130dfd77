"""Killing a tree to the last descendant."""

from __future__ import annotations

import contextlib
import resource
import select
import signal
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final

from probate import BusyResourceError, Outcome, ReleaseError, ReleaseTimeoutError
from probate.system import read_proc
from probate_processes.procfs import Members, close_all, is_exhaustion
from probate_processes.sharedmemory import is_resource_tracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import OsProcess
    from probate_processes.cgroup import Cgroup
    from probate_processes.sharedmemory import SharedFiles
    from probate_processes.stopping import Stopping
    from probate_processes.tree import Tree, UnclaimedChildren
    from probate_processes.treeregistry import TreeRegistry

#: Seconds that killed processes get to be gone. SIGKILL waits for nobody's goodwill, but for the
#: kernel, which has memory to free, and may sleep uninterruptibly.
_KILL_TIME: Final = 2.0

#: Seconds that resource trackers get, when all whom they serve are dead, to unlink what is left.
_TRACKER_TIME: Final = 2.0

#: Seconds between two looks at the dead whom somebody traces.
_HELD_PAUSE: Final = 0.005

#: How often it is looked who is left of a tree in which each time somebody new has died.
_LOOKS: Final = 8

#: So many looks in a row that found nobody, each while some child was reaped, tell as much as one
#: while none was.
_DISTURBED_LOOKS: Final = 2
#: How often it is looked again at most for whom the last look came too late.
_CHASES: Final = 100


class NotPermittedError(ReleaseError):
    """Some of a tree belong to another user, who alone may signal them: they are let go of."""

    outcome = Outcome.REFUSED


class Killable(Protocol):
    """Finds the processes of a tree, or of what a dead host has left of one."""

    stopping: Stopping | None
    cgroup: Cgroup | None
    shared_files: SharedFiles
    #: Whether a scan came too late for somebody, who may have left a child to the next one.
    has_lost_sight: bool

    def scan(self, members: Members, unclaimed_children: Any, /) -> bool:
        """Find and pin those members that are not known yet; whether there were any."""

    def reap(self, process: OsProcess, /) -> bool:
        """Reap a dead member that is ours to reap; False if that cannot be done yet."""


def kill(tree: Killable, unclaimed_children: UnclaimedChildren | None) -> bool:
    """Kill all of a tree, and reap what comes to us, but the leader; return whether anybody lived.

    Where there is a cgroup, the kernel kills it at one stroke. Resource trackers are killed last,
    when they have had time to do their work. Raises ReleaseTimeoutError, NotPermittedError naming
    who is left, BusyResourceError if there are no descriptors to find anybody.
    """
    # Whoever was asked to stop had time enough, and those pinned for it are known already.
    members: Members = {} if tree.stopping is None else tree.stopping.hand_over()
    try:
        look = _look(tree, unclaimed_children, members)
        alive = _alive(members)
        has_lived = not look.is_whole or bool(alive)
        tree.shared_files.note(member.os_pid for member in alive)
        if any(is_resource_tracker(member.os_pid) for member in alive):
            # What keeps the others is said when all are to be killed.
            with contextlib.suppress(ReleaseError):
                _kill_all(tree, unclaimed_children, members, is_spared=is_resource_tracker)
            trackers = [each for each in _alive(members) if is_resource_tracker(each.os_pid)]
            for tracker in trackers:
                with contextlib.suppress(PermissionError):
                    tracker.send_signal(signal.SIGCONT)
            _wait(trackers, time.monotonic() + _TRACKER_TIME)
        if tree.cgroup is not None and (has_lived or tree.cgroup.is_populated()):
            has_lived = True
            tree.cgroup.kill()
        return _kill_all(tree, unclaimed_children, members) or has_lived
    finally:
        close_all(members)


def _kill_all(
    tree: Killable,
    unclaimed_children: UnclaimedChildren | None,
    members: Members,
    is_spared: Callable[[int], bool] = lambda _: False,
) -> bool:
    """Kill all that are not spared, to the last; return whether any lived that were not known.

    Freeze, and look again, until nobody new is found, since what is frozen does not fork; kill;
    and look again until nobody is left.
    """

    def alive() -> list[OsProcess]:
        return [each for each in _alive(members) if not is_spared(each.os_pid)]

    over = time.monotonic() + _KILL_TIME
    has_lived = False
    while True:
        refused = _freeze(tree, unclaimed_children, members, over, alive)
        for member in alive():
            with contextlib.suppress(PermissionError):
                member.send_signal(signal.SIGKILL)
        _wait(alive(), over)
        held = reap(tree, members)
        has_room = _drop_reaped(members)
        left = alive()
        if not left:
            look = _look_again(tree, unclaimed_children, members)
            # Those who died before their parents did have come to us by now.
            held = reap(tree, members)
            if not (look.has_more or held or tree.has_lost_sight) and look.is_whole:
                return has_lived
            if not look.is_whole and not look.has_more and not has_room:
                raise BusyResourceError("no descriptors are left to find all of it by")
            has_lived |= look.has_more or not look.is_whole
        if left and refused.issuperset(member.os_pid for member in left):
            raise NotPermittedError(f"not permitted to kill {_named(left)}")
        if time.monotonic() > over:
            if (left := alive()) or not held:
                named = _named(left) or "those that fork faster than they are found"
                raise ReleaseTimeoutError(f"killed and not gone yet: {named}")
            traced = ", ".join(f"{each.os_pid} by {_tracer_of(each)}" for each in held)
            raise ReleaseTimeoutError(
                f"killed, and traced by one that neither waits for it nor detaches: {traced}"
            )
        if held:
            # The kernel tells the tracer, and nobody else.
            time.sleep(_HELD_PAUSE)


def reap_if_deserted(tree: Tree, trees: TreeRegistry, death_round: int | None) -> bool | None:
    """Reap the dead of a tree that have come to us, if nobody of it lives; return whether so.

    All but the leader, which was seen to have exited in that round of the death watch. None if
    that cannot be told at present. Blocks nowhere.
    """
    if tree.stopping is not None and tree.stopping.is_waiting():
        # With their parent dead, some may be known there only.
        return False
    if _has_left_nobody(tree, trees, death_round):
        return True
    members: Members = {}
    try:
        for _ in range(_LOOKS):
            # Whoever was alive at one look may have left a child to the next one.
            look = _look(tree, trees.unclaimed_children, members)
            if not look.is_whole or _alive(members):
                return False
            if not look.has_more:
                return None if look.is_disturbed else not reap(tree, members)
        return None
    finally:
        close_all(members)


def _has_left_nobody(tree: Tree, trees: TreeRegistry, death_round: int | None) -> bool:
    """Whether it is certain that a leader which has exited was all that there was of its tree.

    Whoever it left has come to us, since we are a subreaper; or has the init of a pid namespace
    for a parent, and is known by the cgroup.
    """
    if tree.cgroup is not None and tree.cgroup.is_populated():
        return False
    try:
        return not trees.has_orphans_of(tree, death_round)
    except OSError as error:
        if not is_exhaustion(error):
            raise
        return False


@final
class _Look(NamedTuple):
    """What a look for the members of a tree has shown."""

    #: Whether there were descriptors for all of them.
    is_whole: bool
    #: Whether there are new ones.
    has_more: bool
    #: Whether a child of this host was reaped meanwhile, or somebody gone before it was pinned.
    is_disturbed: bool


def _look(tree: Killable, unclaimed_children: UnclaimedChildren | None, members: Members) -> _Look:
    """Scan once. If nobody known was alive, and it finds nobody, nobody is: but if disturbed.

    Of children that are reaped meanwhile, the kernel may skip the next ones (proc(5)); and of one
    that was listed, and gone before it was pinned, the child came to us after the listing. Whoever
    is reaped adds what it has used to that of the children reaped so far (getrusage(2)).
    """
    known = len(members)
    tree.has_lost_sight = False
    reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        has_more, is_whole = tree.scan(members, unclaimed_children), True
    except OSError as error:
        if not is_exhaustion(error):
            raise
        has_more, is_whole = len(members) > known, False
    is_disturbed = resource.getrusage(resource.RUSAGE_CHILDREN) != reaped
    return _Look(is_whole, has_more, is_disturbed or tree.has_lost_sight)


def _look_again(
    tree: Killable, unclaimed_children: UnclaimedChildren | None, members: Members
) -> _Look:
    """Look once undisturbed, or so often that it tells as much."""
    for count in range(1, _CHASES):
        look = _look(tree, unclaimed_children, members)
        is_told = not look.is_disturbed or look.has_more or not look.is_whole
        if is_told or (count >= _DISTURBED_LOOKS and not tree.has_lost_sight):
            return look
    return _look(tree, unclaimed_children, members)


def _freeze(
    tree: Killable,
    unclaimed_children: UnclaimedChildren | None,
    members: Members,
    over: float,
    alive: Callable[[], list[OsProcess]],
) -> set[int]:
    """Stop all members, until no scan finds another one; return those that we may not signal."""
    frozen: set[int] = set()
    refused: set[int] = set()
    while True:
        for member in alive():
            if member.os_pid not in frozen:
                frozen.add(member.os_pid)
                try:
                    member.send_signal(signal.SIGSTOP)
                except PermissionError:
                    refused.add(member.os_pid)
        # The loop ends: what is stopped does not fork, and the others have run out of time, or
        # this host of descriptors: then these go first.
        look = _look(tree, unclaimed_children, members)
        if not look.is_whole or not look.has_more or time.monotonic() > over:
            return refused


def _wait(processes: list[OsProcess], over: float) -> None:
    """Wait until all have exited, or it is over."""
    poll = select.poll()
    left = {process.fileno() for process in processes}
    for fd in left:
        poll.register(fd, select.POLLIN)
    while left and (seconds := over - time.monotonic()) > 0:
        for fd, _ in poll.poll(seconds * 1000):
            poll.unregister(fd)
            left.discard(fd)


def reap(tree: Killable, members: Members) -> list[OsProcess]:
    """Reap the dead that are our children by now, but for the leader.

    Returns those that cannot be reaped yet, since somebody traces them.
    """
    dead = [member for member in members.values() if member.has_exited()]
    return [member for member in dead if not tree.reap(member)]


def _drop_reaped(members: Members) -> bool:
    """Let go of those who have been reaped; return whether there were any."""
    reaped = [member for member in members.values() if not member.is_there()]
    for member in reaped:
        del members[member.os_pid]
        member.close()
    return bool(reaped)


def _alive(members: Members) -> list[OsProcess]:
    return [member for member in members.values() if not member.has_exited()]


def _tracer_of(process: OsProcess) -> str:
    """Read who traces a process (proc(5)); it may have stopped by now.

    Nothing but a line feed ends a line: its name may have any other byte in it.
    """
    with contextlib.suppress(OSError):
        for line in read_proc(f"/proc/{process.os_pid}/status").split(b"\n"):
            if line.startswith(b"TracerPid:"):
                return line.split()[1].decode()
    return "0"


def _named(processes: list[OsProcess]) -> str:
    return ", ".join(str(process.os_pid) for process in processes)
