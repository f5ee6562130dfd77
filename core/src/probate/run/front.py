"""The front: the process that is seen in the place of a command, and waits for it.

It is in the session, the process group and at the terminal that it was started in, and so is the
command. It copies nothing: the command has the very streams. The keeper, a process apart, settles
what is left, also when this one is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.run.groupwitness import GroupWitness, wait_for_group
from probate.run.keeper import Keeper, KeeperNotStartedError
from probate.run.launching import Command
from probate.run.signalqueue import Arrived, SignalQueue
from probate.run.terminal import Terminal, stop_as

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate.run.account import RunAccount
    from probate.run.options import RunOptions

#: By what somebody says that he wants it to end.
_ENDING: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)

#: Descriptors that it takes, at most, until all is settled.
_NEEDED: Final = 32

#: What stops a process, unless it handles that.
_STOPPING: Final = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}

#: What a terminal has killed a command with, if that was us as well.
_KEYS: Final = (signal.SIGINT, signal.SIGQUIT)


@final
class Ended(NamedTuple):
    """Says how a command has ended."""

    #: As waitpid(2) has it.
    status: int
    #: Why it was never run; empty if it was.
    failure: str
    #: What became of what it had left.
    account: RunAccount
    #: The signal that it ended by, if a key of the terminal has sent it, to us as well; or 0.
    key: int

    @property
    def code(self) -> int:
        """The exit status: the command's, or 128 and the number of the signal that ended it."""
        code = os.waitstatus_to_exitcode(self.status)
        return code if code >= 0 else 128 - code


def run(options: RunOptions) -> Ended:
    """Run a command to its end, and settle what it has left.

    From here on, signals no longer act on this process, which has no other threads. Raises
    OSError and KeeperNotStartedError if nothing was started.
    """
    ignored = [
        number
        for number in (signal.SIGINT, signal.SIGCHLD)
        if signal.getsignal(number) is signal.SIG_IGN
    ]
    # Whoever ignores it has no children to wait for (wait(2)).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _check_descriptors()
    inherited = _inherited_descriptors()
    signals = SignalQueue()
    keeper = Keeper.start(options)
    terminal = Terminal()
    witness = GroupWitness()
    early = signals.read()
    command = Command.launch(
        options.argv,
        blocked=signals.mask_before,
        ignored=ignored,
        before_exec=keeper.before_exec,
    )
    keeper.started(command.os_pid, command.pidfd)
    _let_go(inherited)
    front = _Front(keeper, command, signals, witness)
    front.catch_up(early)
    status = front.wait()
    witness.close()
    if os.WIFSIGNALED(status):
        terminal.restore()
    signals.take_only(_ENDING)
    account = keeper.ended(status, signals.fileno())
    _reap()
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    is_by_key = number in _KEYS and number in front.keys
    return Ended(status, command.failure, account, number if is_by_key else 0)


def _check_descriptors() -> None:
    """Raise KeeperNotStartedError where descriptors would not do: before anything is started."""
    taken: list[int] = []
    try:
        taken.extend(os.eventfd(0) for _ in range(_NEEDED))
    except OSError as error:
        raise KeeperNotStartedError(
            f"it takes {_NEEDED} descriptors to start a command, and {len(taken)} are free "
            f"({error.strerror}): raise `ulimit -n`"
        ) from error
    finally:
        for fd in taken:
            os.close(fd)


@final
class _Front:
    """Waits for a command: stops when it stops, and passes on what is sent to us in its place."""

    def __init__(
        self, keeper: Keeper, command: Command, signals: SignalQueue, witness: GroupWitness
    ) -> None:
        self._keeper = keeper
        self._command = command
        self._signals = signals
        self._witness = witness
        self._is_stopped = False
        #: What the kernel has sent, as it does for keys of the terminal.
        self.keys: Final[set[int]] = set()

    def wait(self) -> int:
        """Return the status that the command has ended with."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        keeper = self._keeper.pidfd
        poll.register(keeper, select.POLLIN)
        while True:
            for number, _ in poll.poll():
                if number == keeper:
                    poll.unregister(keeper)
                    keeper = self._keeper.pidfd if self._keeper.revive() else -1
                    if keeper >= 0:
                        poll.register(keeper, select.POLLIN)
                    continue
                # What has come first is passed on first: whoever stops us may do so for long.
                self._pass_on_arrived()
                # One signal may stand for several children.
                if (status := self._reap()) is not None:
                    # The key that it has died of may be on its way to us.
                    wait_for_group()
                    self._read()
                    return status

    def catch_up(self, early: Iterable[Arrived]) -> None:
        """Pass on what has come before the command was there, from keys as well."""
        for arrived in early:
            if arrived.number != signal.SIGCHLD:
                self.pass_on(arrived.number)

    def pass_on(self, number: int) -> None:
        """Signal the command; it may have ended."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._command.pidfd, number)

    def _read(self) -> list[Arrived]:
        arrived = self._signals.read()
        self.keys.update(each.number for each in arrived if not each.is_of_a_process)
        return arrived

    def _pass_on_arrived(self) -> None:
        """Pass on what the command has not got with its group, in the order in which it came."""
        arrived = more = self._read()
        seen: set[tuple[int, int]] = set()
        while sent := {each.number for each in more if self._is_to_be_asked_about(each)}:
            if signal.SIGCONT in sent:
                # It may have been stopped with us.
                self._witness.carry_on()
            seen |= self._witness.seen()
            # What it has seen has come to us by then; what has come since, it is asked again.
            wait_for_group()
            more = self._read()
            arrived = [*arrived, *more]
        for each in arrived:
            if self._is_to_be_asked_about(each):
                is_ours = (each.number, each.sender) not in seen
                if each.number == signal.SIGCONT and is_ours:
                    is_ours = self._is_to_be_continued(seen)
            else:
                # When the terminal is gone, the kernel tells the leader of the session alone.
                is_gone = each.number == signal.SIGHUP and not each.is_of_a_process
                is_ours = is_gone and not self._is_in_our_group()
            if is_ours:
                self.pass_on(each.number)

    def _is_to_be_asked_about(self, arrived: Arrived) -> bool:
        """Tell whether somebody has sent it, who may have meant us alone."""
        return (
            arrived.is_of_a_process
            and arrived.number != signal.SIGCHLD
            and arrived.sender != self._command.os_pid
        )

    def _is_to_be_continued(self, seen: Iterable[tuple[int, int]]) -> bool:
        """Tell whether a SIGCONT that the witness does not have is ours to pass on.

        A stop signal takes it away from whoever has not looked yet (signal(7)); and to continue
        what was stopped since would undo that.
        """
        if self._is_stopped:
            return self._change() is None
        return not any(number in _STOPPING for number, _ in seen)

    def _change(self) -> int | None:
        """Return how the command has changed that nobody has waited for (waitid(2)), if it has."""
        flags = os.WSTOPPED | os.WCONTINUED | os.WEXITED | os.WNOHANG | os.WNOWAIT
        change = os.waitid(os.P_PIDFD, self._command.pidfd, flags)
        return None if change is None else change.si_code

    def _is_in_our_group(self) -> bool:
        with contextlib.suppress(OSError):
            return os.getpgid(self._command.os_pid) == os.getpgrp()
        return True

    def _reap(self) -> int | None:
        """Wait for all children that have changed; return the command's status if it has ended."""
        stopped_by = 0
        for os_pid, status in _changes():
            if os_pid != self._command.os_pid:
                continue
            if not os.WIFSTOPPED(status) and not os.WIFCONTINUED(status):
                return status
            self._is_stopped = os.WIFSTOPPED(status)
            stopped_by = os.WSTOPSIG(status) if self._is_stopped else 0
        wait_for_group()
        if stopped_by and self._change() is None:
            stop_as(stopped_by)
        return None


def _changes() -> Iterable[tuple[int, int]]:
    """Wait for children that have ended, stopped or been continued: also for adopted orphans."""
    with contextlib.suppress(ChildProcessError):
        while (change := os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED))[0]:
            yield change


def _reap() -> None:
    """Wait for all who have ended."""
    for _ in _changes():
        pass


def _inherited_descriptors() -> list[int]:
    """Return the numbers above the standard streams that a command is to have."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  numbers
        number = int(name)
        # The one that is looked with is closed by now.
        with contextlib.suppress(OSError):
            if number > 2 and not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found.append(number)
    return found


def _let_go(inherited: Iterable[int]) -> None:
    """Hold nothing of the command but standard error: whoever reads waits for its end alone."""
    for number in inherited:
        with contextlib.suppress(OSError):
            os.close(number)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
