"""Keeper: the process outside of the tree that settles what a run leaves, as its front has it.

The front starts it before the command, and tells it when that has started and ended. It is nobody's
child, in a session of its own: who kills the front's tree does not find it. If it dies, the front
holds what a new one needs. A front that is a host has it started apart (apart.py).
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self, final

from probate.errors import ProbateError
from probate.run.account import RunAccount
from probate.run.facts import KEEPER_VARIABLE, RunFacts, SharedPage
from probate.run.messages import is_readable, read_text, receive, send, send_with_self
from probate.run.serving import serve
from probate.run.tree import RUN_VARIABLE
from probate.system.peer import peer_of
from probate.system.subreaper import set_subreaper
from probate.system.tagging import set_tag

if TYPE_CHECKING:
    from probate.run.options import RunOptions

#: Seconds that a keeper gets to be ready, on however busy a machine.
_STARTING: Final = 15.0

#: And to be gone, when it has said its last: it needs some microseconds.
_ENDING: Final = 5.0


@final
class KeeperNotStartedError(ProbateError):
    """Raised when nobody would settle what a command leaves: it is not started then."""


@final
class Keeper:
    """Speaks with the keeper of one run, for its front. For one thread."""

    def __init__(self, facts: RunFacts, *, is_apart: bool = False) -> None:
        """`is_apart` says that this process is a host, of which nothing is to be forked."""
        self._facts = facts
        self._is_apart = is_apart
        self._channel: socket.socket | None = None
        #: Refers to the keeper's OS process: readable when that has died.
        self.pidfd = -1
        #: The name of the socket by which runs within a run join it.
        self._joining_name = f"probate-run-{facts.nonce}"
        #: That of ours; None if this run has joined another.
        self._joining: socket.socket | None = None
        #: What has started, as the keeper was told: its pid, and our pidfd of it.
        self._command: tuple[int, int] | None = None
        self._notes: list[str] = []
        self._page = SharedPage.in_file() if is_apart else SharedPage()
        try:
            self._from_child, self._to_front = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_SEQPACKET
            )
        except BaseException:
            self._page.close()
            raise
        #: A duplicate of the listener, for as long as somebody may make calls that are held.
        self._listener = -1

    @classmethod
    def start(cls, options: RunOptions) -> Self:
        """Start a keeper, or join that of the run that this process is of, if it looks on.

        When this returns, it watches over this process, to which orphans of the command come from
        now on. Raises KeeperNotStartedError.
        """
        keeper = cls(RunFacts.of_this_process(options))
        keeper._join_or_launch()
        return keeper

    @classmethod
    def start_apart(cls, options: RunOptions, tag: int) -> Self:
        """Start a keeper, or join one, for a host that has a command started with this tag.

        Raises KeeperNotStartedError.
        """
        keeper = cls(RunFacts.of_this_process(options, tag), is_apart=True)
        try:
            keeper._join_or_launch()
        except BaseException:
            keeper.close()
            raise
        return keeper

    # -- the command ---------------------------------------------------------

    def before_exec(self) -> None:
        """Mark this process, a forked child that is about to become the command, as the run's.

        It marks `os.environ`, too, which the command is to get. With `isolate`, it returns in a
        child of that child, and raises IsolationUnavailableError where that cannot be had.
        """
        set_tag(os.getpid(), self._facts.tag)
        os.environ[RUN_VARIABLE] = self._facts.nonce
        options = self._facts.options
        if options.isolate:
            from probate.run.isolate import isolate

            isolate(options.grace, self._look_on)
        else:
            self._look_on()

    @property
    def environment(self) -> dict[str, str]:
        """What the command is to have in its environment, under the filter of this run."""
        return {RUN_VARIABLE: self._facts.nonce, KEEPER_VARIABLE: self._joining_name}

    def look_on(self) -> None:
        """Put this process, a forked child, under the filter, and hand on its listener.

        Raises ObservationUnavailableError.
        """
        if self._joining is None:
            # It is under the filter of the run that this one is in.
            return
        from probate.run.filter import install

        listener = install(allow_setuid=self._facts.options.allow_setuid)
        # This process has them until it executes the command, whose calls are held until then.
        send(self._to_front, {"listener": True}, listener)
        self._tell({"listener": True}, listener)
        os.close(listener)

    def started(self, os_pid: int, pidfd: int) -> None:
        """Tell the keeper that the command runs, or was forked, as this OS process."""
        self._command = os_pid, os.dup(pidfd)
        self._to_front.close()
        # The end, if the child has none, or is none any more.
        with suppress(OSError), self._from_child:
            if self._joining is not None:
                _, descriptors = receive(self._from_child)
                self._listener = descriptors[0] if descriptors else -1
        self._tell({"started": os_pid}, pidfd)

    def ended(self, status: int, impatience: int | None = None) -> RunAccount:
        """Tell that the command has ended with this status (waitpid(2)); wait until it is settled.

        When there is something to read from `impatience`, a descriptor, the grace is over.
        A keeper that has died is replaced, once; if none can be had, this process ends what it
        sees of the tree.
        """
        for _ in range(2):
            if self._is_over() and not self.revive():
                break
            try:
                return self._settled(status, impatience)
            except OSError:
                self._close()
        tree = self._facts.tree()
        settled = tree.end(0)
        tree.close()
        self._notes.append("what was made by a name is left: `probate sweep` settles it")
        return RunAccount(tuple(settled), tuple(self._notes))

    def revive(self) -> bool:
        """Start a new keeper in the place of one that has died; tell whether there is one again."""
        if not self._is_over():
            return True
        # Late: no command needs it.
        from probate.journal.store import above_standard_streams

        with suppress(OSError):
            self._hear_last()
        self._close()
        try:
            # What it is given has numbers there that are not these, which may be closed here.
            with above_standard_streams():
                if self._joining is not None:
                    self._launch(self._joining)
                elif not self._has_joined(self._joining_name):
                    raise KeeperNotStartedError("the keeper of the run around this one has died")
            if self._command is not None:
                self._tell({"started": self._command[0]}, self._command[1])
        except (KeeperNotStartedError, OSError) as error:
            self._notes.append(str(error))
            return False
        self._notes.append("the keeper was killed; another one has taken over")
        return True

    # -- inside --------------------------------------------------------------

    def _look_on(self) -> None:
        """Look on at this process, the child, if that can be had; say so if not."""
        if self._joining is None:
            return
        os.environ.pop(KEEPER_VARIABLE, None)
        if self._facts.options.observe == "none":
            return
        from probate.run.filter import ObservationUnavailableError

        try:
            self.look_on()
        except ObservationUnavailableError as error:
            self._tell({"note": str(error)})
        else:
            os.environ[KEEPER_VARIABLE] = self._joining_name

    def _join_or_launch(self) -> None:
        outer = os.environ.get(KEEPER_VARIABLE)
        is_to_join = outer is not None and self._facts.options.observe != "none"
        if is_to_join and self._has_joined(str(outer)):
            return
        self._joining = joining = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # It has no path: nothing is left of it, whoever is killed.
        joining.bind(f"\0{self._joining_name}")
        joining.listen()
        self._launch(joining)

    def _has_joined(self, name: str) -> bool:
        """Join the run whose keeper has a socket of this name; tell whether that could be done."""
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.settimeout(_STARTING)
        try:
            channel.connect(f"\0{name}")
            if peer_of(channel)[1] != os.geteuid():
                raise PermissionError("the run that this one is in is another user's")
            send_with_self(channel, {"join": self._facts.to_json()})
            message, descriptors = receive(channel)
            if not message.get("observes") or not descriptors:
                raise OSError("nobody looks on there")
        except OSError:
            # What follows is as in no other run: the kernel says why nobody may look on.
            channel.close()
            return False
        channel.settimeout(None)
        self._joining_name = name
        self._channel, self.pidfd = channel, descriptors[0]
        if not self._is_apart:
            _set_subreaper(True)
        return True

    def _launch(self, joining: socket.socket) -> None:
        """Start a keeper, and wait until it is ready. Raises KeeperNotStartedError."""
        own = os.pidfd_open(self._facts.front)
        ours: socket.socket | None = None
        start = _fork_keeper
        if self._is_apart:
            # Late: no command needs what it imports.
            from probate.run.apart import start_apart

            start = start_apart
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                start(theirs, joining, own, self._facts, self._page, self._listener)
            if self._facts.options.observe != "none":
                # While the keeper gets ready: the child needs it.
                import probate.run.filter  # noqa: F401  as above
            ours.settimeout(_STARTING)
            message, descriptors = receive(ours)
            if not message or not descriptors:
                raise OSError(str(message.get("problem", "it ended at once")))
        except OSError as error:
            if ours is not None:
                ours.close()
            raise KeeperNotStartedError(
                f"no keeper could be started ({error}), and nobody would settle what the command "
                "leaves: try again, or start it without probate run"
            ) from error
        finally:
            os.close(own)
        ours.settimeout(None)
        self._channel, self.pidfd = ours, descriptors[0]

    def _settled(self, status: int, impatience: int | None) -> RunAccount:
        channel = self._channel
        if channel is None:
            raise OSError("there is no keeper")
        send(channel, {"ended": status})
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        if impatience is not None:
            poll.register(impatience, select.POLLIN)
        while True:
            events = dict(poll.poll())
            if impatience in events:
                poll.unregister(impatience)
                self._tell({"hurry": True})
            # What it has said before it died counts.
            if channel.fileno() in events:
                message, descriptors = receive(channel)
                if not message:
                    raise OSError("the keeper has died")
                self._note_problem(message)
                if "account" in message:
                    account = RunAccount()
                    if descriptors:
                        account = RunAccount.from_json(read_text(descriptors[0]))
                    else:
                        self._notes.append("no descriptor was free to hear what became of it")
                    self._close()
                    return account._replace(notes=(*self._notes, *account.notes))
            elif self.pidfd in events:
                raise OSError("the keeper has died")

    def _hear_last(self) -> None:
        """Note what a keeper that has died says of it. Raises OSError."""
        while (channel := self._channel) is not None and is_readable(channel.fileno()):
            message, descriptors = receive(channel)
            for fd in descriptors:
                os.close(fd)
            if not message:
                break
            self._note_problem(message)

    def _note_problem(self, message: dict[str, Any]) -> None:
        if "problem" in message:
            self._notes.append(f"the keeper has failed: {message['problem']}")

    def _tell(self, message: dict[str, Any], *descriptors: int) -> None:
        # Should it have died, whoever polls its pidfd starts another one.
        with suppress(OSError):
            if self._channel is not None:
                send(self._channel, message, *descriptors)

    def _is_over(self) -> bool:
        return self._channel is None or is_readable(self.pidfd)

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            if self._is_apart and self._joining is not None:
                _await_end(self.pidfd)
            os.close(self.pidfd)
            self._channel, self.pidfd = None, -1

    def close(self) -> None:
        """Let go of all that this process has of the run. Its account is told by then."""
        self._close()
        self._page.close()
        for end in (self._joining, self._from_child, self._to_front):
            if end is not None:
                end.close()
        for fd in (self._listener, *(self._command or ())[1:]):
            if fd >= 0:
                os.close(fd)


def _fork_keeper(
    theirs: socket.socket,
    joining: socket.socket,
    front: int,
    facts: RunFacts,
    page: SharedPage,
    listener: int,
) -> None:
    """Have a process that is forked from this one be the keeper. Raises OSError."""
    # Else it would come to us as an orphan, and be of our tree.
    _set_subreaper(False)
    try:
        _fork_twice(lambda: serve(theirs, joining, front, facts, page, listener))
    finally:
        _set_subreaper(True)


def _fork_twice(work: Any) -> None:
    """Have a grandchild, which is nobody's child, in a session of its own, do work and end.

    Raises OSError.
    """
    middle = os.fork()
    if middle == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                work()
        finally:
            os._exit(0)
    os.waitpid(middle, 0)


def _await_end(pidfd: int) -> None:
    """Wait until a keeper has ended, and reap it if it is a child of ours, as orphans are."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_ENDING * 1000)
    with suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


def _set_subreaper(flag: bool) -> None:
    # Without it, orphans go elsewhere, and are found by their marks.
    with suppress(OSError):
        set_subreaper(flag)
