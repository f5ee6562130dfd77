"""The keeper's own process: what it does from its start to its end."""

from __future__ import annotations

import math
import os
import resource
import select
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.errors import describe_error
from probate.run.account import RunAccount
from probate.run.ending import end_run
from probate.run.messages import receive, send, send_text
from probate.run.tree import RunTree
from probate.system.clib import libc

if TYPE_CHECKING:
    import mmap
    import socket

    from probate.run.account import SettledThing
    from probate.run.options import RunOptions
    from probate.run.watching import Watch

#: The bytes of the memory that front and keeper share, and where it says where the store is.
PAGES: Final = 8192
_STORE_AT: Final = 4096

#: Milliseconds after which it is worth the while to note a command in the journal.
_MOMENT: Final = 30.0

#: PR_SET_NAME (prctl(2)).
_SET_NAME: Final = 15

#: Standard error's number.
_LAST_STREAM: Final = 2

#: What the kernel or a terminal may send, and no keeper ends of.
_IGNORED: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
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
    #: When the front was started, in clock ticks since boot.
    started: int
    nonce: str
    tag: int
    options: RunOptions
    #: Memory that they share. First the call that was received last; then, where its store is.
    page: mmap.mmap

    def tree(self) -> RunTree:
        """Return the tree, of which nobody is known yet."""
        return RunTree(self.front, self.started, self.nonce, self.tag)

    @property
    def store(self) -> str:
        """Where the store is; nothing before there is one."""
        length = int.from_bytes(self.page[_STORE_AT : _STORE_AT + 2], "little")
        return os.fsdecode(self.page[_STORE_AT + 2 : _STORE_AT + 2 + length])

    def set_store(self, path: str) -> None:
        """Say where the store is, to keepers to come."""
        text = os.fsencode(path)
        self.page[_STORE_AT + 2 : _STORE_AT + 2 + len(text)] = text
        # It counts when its length is there.
        self.page[_STORE_AT : _STORE_AT + 2] = len(text).to_bytes(2, "little")


def serve(channel: socket.socket, facts: RunFacts, listener: int) -> None:
    """Be the keeper: serve until all is settled, and never return.

    `listener` is what a keeper before has served, or -1.
    """
    try:
        front = os.pidfd_open(facts.front)
        _settle_in({channel.fileno(), front, listener})
        own = os.pidfd_open(os.getpid())
        send(channel, {"armed": True}, own)
        os.close(own)
        Serving(channel, front, facts).run(listener)
    except BaseException as error:
        with suppress(OSError):
            send(channel, {"problem": describe_error(error)})
    finally:
        os._exit(0)


@final
class Serving:
    """Serves one run: its front, and what the kernel notices of its tree."""

    def __init__(self, channel: socket.socket, front: int, facts: RunFacts) -> None:
        self._channel = channel
        self._front = front
        self._facts = facts
        self._tree = facts.tree()
        #: As soon as there is something to watch, or the command has run for a moment.
        self._watch: Watch | None = None
        self._command = 0
        self._listener = -1
        self._notes: list[str] = []
        self._poll = select.poll()
        self._settling: threading.Thread | None = None
        self._account = RunAccount()
        #: Readable when all is settled.
        self._done = os.eventfd(0)

    def run(self, listener: int) -> None:
        """Serve until all is settled."""
        for fd in (self._channel.fileno(), self._front, self._done):
            self._poll.register(fd, select.POLLIN)
        if listener >= 0:
            self._listen(listener)
        while True:
            events = dict(self._poll.poll(self._pause()))
            if not events or self._listener in events:
                self._serve_watch(events.get(self._listener, 0))
            if self._channel.fileno() in events:
                self._hear()
            elif self._front in events:
                # It has said nothing more: it was killed.
                self._poll.unregister(self._front)
                self._settle(None)
            if self._done in events:
                break
        if self._watch is not None:
            self._watch.rows.close()
        with suppress(OSError):
            send_text(self._channel, "account", self._account.to_json())

    def _pause(self) -> float | None:
        """Return the milliseconds until something is to be done unasked; None for never."""
        if self._watch is None:
            return _MOMENT if self._settling is None else None
        due = self._watch.rows.due
        return None if math.isinf(due) else max(0.0, due - time.monotonic()) * 1000

    def _serve_watch(self, happened: int) -> None:
        if self._watch is None:
            self._watch = self._start_watch()
        if happened & select.POLLIN:
            self._watch.serve()
            return
        # Nobody waits for an answer.
        self._watch.rows.look()
        self._watch.sweep_others()
        if happened:
            # Nobody is under the filter any more.
            self._poll.unregister(self._listener)
            self._listener = -1

    def _start_watch(self) -> Watch:
        # Imported here: a command that has ended in a moment needs none of it.
        from probate.run.watching import Watch

        facts = self._facts
        watch = Watch(self._tree, facts.options)
        watch.open(facts.front, facts.store)
        if watch.rows.folder is not None:
            facts.set_store(str(watch.rows.folder))
        if self._command:
            watch.note_command(self._command, facts.tag)
        if self._listener >= 0:
            watch.listen(self._listener, facts.page)
        return watch

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
            self._command = message["started"]
            if self._watch is not None:
                self._watch.note_command(self._command, self._facts.tag)
        elif "note" in message:
            self._notes.append(message["note"])
        elif "listener" in message:
            self._listen(descriptors.pop(0))
        for fd in descriptors:
            os.close(fd)

    def _listen(self, listener: int) -> None:
        self._listener = listener
        self._tree.has_filter = True
        if self._watch is not None:
            self._watch.listen(listener, self._facts.page)
        self._poll.register(listener, select.POLLIN)

    def _settle(self, status: int | None) -> None:
        """Settle, on a thread, while the tree is served; without a status, the front is dead."""
        if self._settling is None:
            self._settling = threading.Thread(target=self._end, args=(status,), daemon=True)
            self._settling.start()

    def _end(self, status: int | None) -> None:
        things: list[SettledThing] = []
        notes: list[str] = []
        try:
            things, notes = end_run(self._tree, lambda: self._watch, self._facts.options, status)
        except Exception as error:
            notes = [f"settling has failed, and a sweep tries again: {describe_error(error)}"]
        self._account = RunAccount(tuple(things), (*self._notes, *notes))
        os.eventfd_write(self._done, 1)


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
    libc().prctl(_SET_NAME, b"probate-keeper", 0, 0, 0)
