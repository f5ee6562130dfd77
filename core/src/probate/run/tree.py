"""The OS processes of a run: found by what they cannot shed, and ended to the last."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.journal.policy import is_of_tree
from probate.run.account import SettledThing
from probate.system.arrivals import Arrivals
from probate.system.osprocess import OsProcess, read_proc, stat_of
from probate.system.tagging import tag_of

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The environment variable that has the nonce of the innermost run.
RUN_VARIABLE: Final = "PROBATE_RUN"

#: Seconds that those get who end by themselves when the command has.
_OWN_TIME: Final = 0.2

#: Seconds that what was killed gets to be gone: the kernel has memory to free. And all together,
#: where they are killed one part after the other.
_KILL_TIME: Final = 2.0
_KILL_TIME_OF_PARTS: Final = 10.0

#: How many looks in a row must find nobody.
_EMPTY_LOOKS: Final = 2

#: Of those that were pinned as they made something, the dead are let go of at so many.
_MANY: Final = 256

#: All take no more descriptors than leave so many for others, or one of so many parts if there are
#: few at all.
_OTHERS: Final = 64
_PARTS: Final = 4

#: Where state, parent and start time stand in /proc/PID/stat, after the name (proc(5)).
_STATE, _PARENT, _START = 0, 1, 19


@final
class _Seen(NamedTuple):
    parent: int
    start_time: int


@final
class RunTree:
    """The processes of one run, but for its front and its keeper.

    Who is of the tree is said in `probate.journal.policy`.
    """

    def __init__(
        self, front: int, started: int, nonce: str, tag: int, *, is_front_alone: bool = False
    ) -> None:
        self._front = front
        #: Whether the front has no children but those of the tree.
        self._is_front_alone = is_front_alone
        #: When the front was started, in clock ticks since boot: nobody older is of the tree.
        self._started = started
        self._marker = f"{RUN_VARIABLE}={nonce}".encode()
        self._tag = tag
        #: How many filters this process is under, and so the tree as well: in a container, all are.
        self._filters = _filters_of("self")
        #: Whether the tree runs under our filter.
        self.has_filter = False
        #: By pid: all members that are known, dead ones included for a while.
        self._members: dict[int, OsProcess] = {}
        #: How many of them there may be.
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(limit // _PARTS, limit - _OTHERS)
        self._notified: set[int] = set()
        #: Who has the nonce, and nothing else.
        self.unsure: set[int] = set()
        #: Readable when nobody is to be waited for any more who was asked to stop.
        self._impatience = os.eventfd(0)
        #: Whether the last look came too late for somebody, who may have left a child.
        self.has_lost_sight = False
        #: How many looks in a row have found nobody; None before the first.
        self._empty_looks: int | None = None

    def pin(self, tid: int) -> int:
        """Note the process of a thread that stands still in a call that our filter has noticed.

        Return its pid. Raises OSError if it is gone, or cannot be pinned.
        """
        known = self._members.get(tid)
        if known is not None and _has_its_pid(known):
            return tid
        # While all are ended, on another thread, that one does it.
        if len(self._members) >= min(_MANY, self._most) and self._empty_looks is None:
            self._let_go_of_dead()
        if len(self._members) >= self._most:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        try:
            process = OsProcess.open(tid)
        except ProcessLookupError:
            # Another than its first thread.
            os_pid = _process_of(tid)
            return self.pin(os_pid) if os_pid != tid else tid
        self._members[tid] = process
        self._notified.add(tid)
        return tid

    def scan(self) -> bool:
        """Find members that are not known yet; tell whether there were any.

        If one has come during the look, that is said at once: the next moment it may have exited.
        """
        self.has_lost_sight = is_new = False
        everyone: dict[int, _Seen] = {}
        arrivals = Arrivals()
        for os_pids in arrivals:
            come = _seen_of(os_pids, self._started)
            for own in (self._front, os.getpid()):
                come.pop(own, None)
            arrivals.saw(len(come))
            if arrivals.have_come:
                # One that came and went may have left a child.
                gone = (pid for pid in os_pids if pid not in come)
                self.has_lost_sight |= any(tag_of(pid) == self._tag for pid in gone)
            everyone |= come
            is_new |= self._add_marked(come, everyone)
            if is_new and arrivals.have_come:
                return True
        self.has_lost_sight |= not arrivals.are_told
        return is_new

    def _add_marked(self, come: dict[int, _Seen], everyone: dict[int, _Seen]) -> bool:
        """Add those who are marked, and who descends from a member; tell whether any is new."""
        found = [pid for pid, seen in come.items() if self._is_marked(pid, seen)]
        found += self._alive()
        new = False
        done: set[int] = set()
        while found:
            os_pid = found.pop()
            if os_pid in done:
                continue
            done.add(os_pid)
            new |= self._add(os_pid, everyone.get(os_pid))
            # It has exited since.
            self.has_lost_sight |= os_pid not in self._members
            found += [pid for pid, seen in everyone.items() if seen.parent == os_pid]
        self.unsure.difference_update(done)
        return new

    def members(self) -> list[int]:
        """Look, and return the pids of all that live."""
        self._finds_anybody()
        return self._alive()

    def end(self, grace: float) -> list[SettledThing]:
        """End all of it, and say who that was. With a grace, they are asked to stop first.

        What `members` has found is not looked for again; nobody is ended without a look.
        """
        if self._empty_looks is None:
            self._finds_anybody()
        if grace > 0 and not self._empty_looks:
            # Some end with the command by themselves, as trackers do that see its pipe close: they
            # have work to do until then, and nobody gives them back.
            self._wait(time.monotonic() + min(grace, _OWN_TIME), is_patient=False)
            self.scan()
        ended = {os_pid: _name_of(os_pid) for os_pid in self._alive()}
        if ended and grace > 0:
            self._ask(time.monotonic() + grace, ended)
        last = time.monotonic() + _KILL_TIME_OF_PARTS
        over = time.monotonic() + _KILL_TIME
        while (self._empty_looks or 0) < _EMPTY_LOOKS and time.monotonic() < over:
            if not self._finds_anybody():
                continue
            self._freeze(over)
            for os_pid in self._alive():
                ended.setdefault(os_pid, _name_of(os_pid))
                self._signal(os_pid, signal.SIGKILL)
            self._wait(over)
            if len(self._members) >= self._most:
                over = min(time.monotonic() + _KILL_TIME, last)
        left = set(self._alive())
        return [self._thing(pid, name, is_left=pid in left) for pid, name in ended.items()]

    def hurry(self) -> None:
        """End the grace; from any thread."""
        os.eventfd_write(self._impatience, 1)

    def close(self) -> None:
        """Let go of it, when it has ended."""
        for member in self._members.values():
            member.close()
        self._members.clear()
        os.close(self._impatience)

    # -- who -----------------------------------------------------------------

    def _finds_anybody(self) -> bool:
        """Look; tell whether there was anybody, also one who has ended by now."""
        is_anybody = self.scan() or self.has_lost_sight or bool(self._alive())
        self._empty_looks = 0 if is_anybody else (self._empty_looks or 0) + 1
        return is_anybody

    def _is_marked(self, os_pid: int, seen: _Seen) -> bool:
        if is_of_tree(has_tag=tag_of(os_pid) == self._tag):
            return True
        has_nonce = False
        with suppress(OSError):
            has_nonce = self._marker in read_proc(f"/proc/{os_pid}/environ").split(b"\0")
        is_orphan = seen.parent == self._front
        is_member = is_of_tree(
            has_nonce=has_nonce,
            is_filtered=(has_nonce or is_orphan) and _filters_of(os_pid) > self._filters,
            has_run_filter=self.has_filter,
            is_orphan=is_orphan,
            is_front_alone=self._is_front_alone,
        )
        if has_nonce and not is_member:
            self.unsure.add(os_pid)
        return is_member

    def _add(self, os_pid: int, seen: _Seen | None) -> bool:
        known = self._members.get(os_pid)
        if seen is None or (known is not None and known.start_time == seen.start_time):
            return False
        if len(self._members) >= self._most:
            # It is found again when those have ended that are known.
            self._let_go_of_dead()
            if len(self._members) >= self._most:
                return False
        try:
            process = OsProcess.open(os_pid)
        except (OSError, ValueError):
            return False
        if process.start_time != seen.start_time:
            # Another has its pid by now, and was not judged.
            process.close()
            return False
        self._members[os_pid] = process
        self._notified.discard(os_pid)
        return True

    def _alive(self) -> list[int]:
        return [pid for pid, each in list(self._members.items()) if not each.has_exited()]

    def _let_go_of_dead(self) -> None:
        for os_pid, member in list(self._members.items()):
            if member.has_exited() and self._members.get(os_pid) is member:
                del self._members[os_pid]
                self._notified.discard(os_pid)

    # -- ending --------------------------------------------------------------

    def _ask(self, over: float, ended: dict[int, str]) -> None:
        """Ask all to stop, also those that are started meanwhile, until none is left."""
        asked: set[int] = set()
        while (alive := self._alive()) and time.monotonic() < over:
            for os_pid in alive:
                ended.setdefault(os_pid, _name_of(os_pid))
                if os_pid not in asked:
                    asked.add(os_pid)
                    self._signal(os_pid, signal.SIGTERM)
                    # One that is stopped sees no signal but this.
                    self._signal(os_pid, signal.SIGCONT)
            if not self._wait(over, any_one=True, is_patient=False):
                return
            self.scan()

    def _freeze(self, over: float) -> None:
        """Stop all, until nobody new is found: what is stopped does not fork."""
        frozen: set[int] = set()
        while time.monotonic() < over:
            for os_pid in self._alive():
                if os_pid not in frozen:
                    frozen.add(os_pid)
                    self._signal(os_pid, signal.SIGSTOP)
            if not self.scan():
                return

    def _signal(self, os_pid: int, number: int) -> None:
        # Another user's, by a program that changes its user: it is reported as left.
        with suppress(OSError):
            self._members[os_pid].send_signal(number)

    def _wait(self, over: float, *, any_one: bool = False, is_patient: bool = True) -> bool:
        """Wait until all of the living have exited, or one has; or it is over.

        Returns False, and at once, if somebody is in a hurry, unless it is patient.
        """
        poll = select.poll()
        if not is_patient:
            poll.register(self._impatience, select.POLLIN)
        left = {self._members[os_pid].fileno() for os_pid in self._alive()}
        for fd in left:
            poll.register(fd, select.POLLIN)
        while left and (seconds := over - time.monotonic()) > 0:
            for fd, _ in poll.poll(seconds * 1000):
                if fd == self._impatience:
                    return False
                poll.unregister(fd)
                left.discard(fd)
                if any_one:
                    return True
        return True

    def _thing(self, os_pid: int, name: str, *, is_left: bool) -> SettledThing:
        return SettledThing(
            "processes",
            f"OS process {os_pid}{f' ({name})' if name else ''}",
            os_pid,
            "notified" if os_pid in self._notified else "made",
            "failed" if is_left else "released",
            "it could not be killed: another user's, or held up in the kernel" if is_left else "",
        )


def _seen_of(os_pids: Iterable[int], since: int) -> dict[int, _Seen]:
    """Look at those that live and are no older, by pid; not at those that wait to be reaped."""
    found: dict[int, _Seen] = {}
    for os_pid in os_pids:
        with suppress(ProcessLookupError):
            fields = stat_of(os_pid)
            seen = _Seen(int(fields[_PARENT]), int(fields[_START]))
            if fields[_STATE] not in (b"Z", b"X") and seen.start_time >= since:
                found[os_pid] = seen
    return found


def _has_its_pid(process: OsProcess) -> bool:
    """Tell whether nobody else has the pid of a process, in a process that closes nothing else."""
    try:
        # `is_there` sees first whose the number is, which takes longer than all else for a call.
        signal.pidfd_send_signal(process.fileno(), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _process_of(tid: int) -> int:
    """Return the pid of a thread's process. Raises ProcessLookupError."""
    try:
        # Nothing but a line feed ends a line: its name, above, may have any other byte in it.
        lines = read_proc(f"/proc/{tid}/status").split(b"\n")
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, f"no thread {tid}") from None
    return next(int(line.split()[1]) for line in lines if line.startswith(b"Tgid:"))


def _filters_of(os_pid: int | str) -> int:
    """Return how many filters of system calls a process is under (proc(5), Seccomp_filters)."""
    count = 0
    with suppress(OSError):
        for line in read_proc(f"/proc/{os_pid}/status").split(b"\n"):
            # The number is there since Linux 5.9; before, it is only known whether there are any.
            if line.startswith((b"Seccomp:", b"Seccomp_filters:")):
                count = int(line.split()[1])
    return count


def _name_of(os_pid: int) -> str:
    with suppress(OSError):
        return os.fsdecode(read_proc(f"/proc/{os_pid}/comm").strip())
    return ""


def names_of(members: Iterable[int]) -> str:
    """Name OS processes for people."""
    return ", ".join(f"{os_pid} ({_name_of(os_pid)})" for os_pid in sorted(members))
