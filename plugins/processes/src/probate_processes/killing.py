"""Killing a tree to the last descendant."""

from __future__ import annotations

import contextlib
import select
import signal
import time
from typing import TYPE_CHECKING, Final

from probate import ReleaseError, ReleaseTimeoutError
from probate_processes.tree import Members, close_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import OsProcess
    from probate_processes.tree import Tree

#: Seconds that killed processes get to be gone. SIGKILL waits for nobody's goodwill, but for the
#: kernel, which has memory to free, and may sleep uninterruptibly.
_KILL_TIME: Final = 2.0


class NotPermittedError(ReleaseError):
    """Some of a tree belong to another user, who alone may signal them."""


def kill(tree: Tree, strangers: Callable[[], list[int]]) -> bool:
    """Kill all of a tree, and reap what comes to us, but for the leader; whether anybody lived.

    Where there is a cgroup, the kernel kills it at one stroke. Then, or instead: freeze, and look
    again, until nobody new is found, since what is frozen does not fork; kill; and look again
    until nobody is left. Raises ReleaseTimeoutError, NotPermittedError naming who is left.
    """
    over = time.monotonic() + _KILL_TIME
    members: Members = {}
    has_lived = False
    try:
        tree.scan(members, strangers)
        has_lived = any(not member.has_exited() for member in members.values())
        if has_lived and tree.cgroup is not None:
            tree.cgroup.kill()
        while True:
            refused = _freeze(tree, strangers, members, over)
            for member in _alive(members):
                with contextlib.suppress(PermissionError):
                    member.send_signal(signal.SIGKILL)
            _wait(members, over)
            _reap(tree, members)
            alive = _alive(members)
            if not alive and not tree.scan(members, strangers):
                # Those who died before their parents did have come to us by now.
                _reap(tree, members)
                return has_lived
            has_lived = True
            if alive and refused.issuperset(member.os_pid for member in alive):
                raise NotPermittedError(f"not permitted to kill {_named(alive)}")
            if time.monotonic() > over:
                raise ReleaseTimeoutError(f"killed and not gone yet: {_named(_alive(members))}")
    finally:
        close_all(members)


def _freeze(
    tree: Tree, strangers: Callable[[], list[int]], members: Members, over: float
) -> set[int]:
    """Stop all members, until no scan finds another one; return those that we may not signal."""
    frozen: set[int] = set()
    refused: set[int] = set()
    while True:
        for member in _alive(members):
            if member.os_pid not in frozen:
                frozen.add(member.os_pid)
                try:
                    member.send_signal(signal.SIGSTOP)
                except PermissionError:
                    refused.add(member.os_pid)
        # The loop ends: what is stopped does not fork, and the others have run out of time.
        if not tree.scan(members, strangers) or time.monotonic() > over:
            return refused


def _wait(members: Members, over: float) -> None:
    """Wait until all have exited, or it is over."""
    poll = select.poll()
    left = {member.fileno() for member in _alive(members)}
    for fd in left:
        poll.register(fd, select.POLLIN)
    while left and (seconds := over - time.monotonic()) > 0:
        for fd, _ in poll.poll(seconds * 1000):
            poll.unregister(fd)
            left.discard(fd)


def _reap(tree: Tree, members: Members) -> None:
    """Reap the dead that are our children by now, but for the leader, whose pid is still needed."""
    for os_pid, member in list(members.items()):
        if member.has_exited() and os_pid != tree.os_pid:
            # Those of another parent are that one's to reap.
            with contextlib.suppress(ChildProcessError):
                member.exit_code(reap=True)


def _alive(members: Members) -> list[OsProcess]:
    return [member for member in members.values() if not member.has_exited()]


def _named(processes: list[OsProcess]) -> str:
    return ", ".join(str(process.os_pid) for process in processes)
