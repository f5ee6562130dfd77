"""The keeper's own process: what it does from its start to its end."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.run.account import RunAccount
from probate.run.messages import receive, send, send_text
from probate.run.tree import RunTree, names_of

if TYPE_CHECKING:
    import socket

    from probate.run.options import RunOptions

#: PR_SET_NAME (prctl(2)).
_SET_NAME: Final = 15

#: Standard error's number.
_LAST_STREAM: Final = 2

#: Signals after which whoever is left is asked to stop, as after an exit.
_ASKED: Final = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}

#: What the kernel or a terminal may send, and no keeper ends of.
_IGNORED: Final = (
    *_ASKED,
    signal.SIGPIPE,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


@final
class RunFacts(NamedTuple):
    """What is known of a run before its command starts, to its front and each of its keepers."""

    front: int
    nonce: str
    tag: int
    options: RunOptions


def serve(channel: socket.socket, facts: RunFacts) -> None:
    """Be the keeper: serve until all is settled, and never return."""
    try:
        front = os.pidfd_open(facts.front)
        _settle_in({channel.fileno(), front})
        own = os.pidfd_open(os.getpid())
        send(channel, {"armed": True}, own)
        os.close(own)
        Serving(channel, front, facts).run()
    except BaseException as error:
        with suppress(OSError):
            send(channel, {"problem": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


@final
class Serving:
    """Serves one run: its front, and what the kernel notices of its tree."""

    def __init__(self, channel: socket.socket, front: int, facts: RunFacts) -> None:
        self._channel = channel
        self._front = front
        self._facts = facts
        self._tree = RunTree(facts.front, facts.nonce, facts.tag)
        self._notes: list[str] = []
        self._poll = select.poll()
        self._settling: threading.Thread | None = None
        self._account = RunAccount()
        #: Readable when all is settled.
        self._done = os.eventfd(0)

    def run(self) -> None:
        """Serve until all is settled."""
        for fd in (self._channel.fileno(), self._front, self._done):
            self._poll.register(fd, select.POLLIN)
        while True:
            events = [fd for fd, _ in self._poll.poll()]
            if self._channel.fileno() in events:
                self._hear()
            elif self._front in events:
                # It has said nothing more: it was killed.
                self._poll.unregister(self._front)
                self._settle(None)
            if self._done in events:
                break
        with suppress(OSError):
            send_text(self._channel, "account", self._account.to_json())

    def _hear(self) -> None:
        try:
            message, descriptors = receive(self._channel)
        except OSError:
            message, descriptors = {}, []
        if not message:
            # Its end is closed: if it lives, it has become another program.
            self._poll.unregister(self._channel.fileno())
        elif "ended" in message:
            self._poll.unregister(self._front)
            self._settle(message["ended"])
        elif "started" in message:
            self._tree.pin(message["started"])
        for fd in descriptors:
            os.close(fd)

    def _settle(self, status: int | None) -> None:
        """Settle, on a thread, while the tree is served; without a status, the front is dead."""
        if self._settling is None:
            self._settling = threading.Thread(target=self._end, args=(status,), daemon=True)
            self._settling.start()

    def _end(self, status: int | None) -> None:
        settled: list[Any] = []
        try:
            settled += self._tree.end(self._facts.options.grace if _is_gentle(status) else 0)
            if self._tree.unsure:
                who = names_of(self._tree.unsure)
                self._notes.append(f"has the environment of the run alone, and was left: {who}")
        except Exception as error:
            self._notes.append(f"settling has failed: {type(error).__name__}: {error}")
        self._account = RunAccount(tuple(settled), tuple(self._notes))
        os.eventfd_write(self._done, 1)


def _is_gentle(status: int | None) -> bool:
    """Tell whether whoever is left is to be asked to stop, before it is killed."""
    if status is None:
        return False
    return not os.WIFSIGNALED(status) or os.WTERMSIG(status) in _ASKED


def _settle_in(kept: set[int]) -> None:
    """Be a process that nobody's terminal, folder or pipe is held up by."""
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir("/")
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(_LAST_STREAM + 1):
        os.dup2(null, fd)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  names are what is needed
        if int(name) > _LAST_STREAM and int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))
    ctypes.CDLL(None).prctl(_SET_NAME, b"probate-keeper", 0, 0, 0)
