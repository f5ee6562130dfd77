"""The keeper's own process: what it does from its start to its end."""

from __future__ import annotations

import gc
import math
import os
import resource
import select
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from probate.errors import describe_error
from probate.run.account import RunAccount
from probate.run.ending import end_run
from probate.run.facts import RunFacts
from probate.run.kinds import load_ahead
from probate.run.messages import is_readable, receive, send, send_with_self
from probate.run.served import ServedRun
from probate.system.clib import libc
from probate.system.closing import hold_only
from probate.system.peer import peer_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from probate.run.facts import SharedPage
    from probate.run.watching import Watch

#: Milliseconds after which it is worth the while to note a command in the journal.
_MOMENT: Final = 30.0

#: Seconds after which what is made, and there still, seems to be there for good: what compilers
#: make lasts less.
_LASTING: Final = 0.3

#: PR_SET_NAME (prctl(2)).
_SET_NAME: Final = 15

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


def serve(
    channel: socket.socket,
    joining: socket.socket,
    front: int,
    facts: RunFacts,
    page: SharedPage,
    listener: int,
) -> None:
    """Be the keeper: serve until all is settled, and never return.

    By `joining` come the fronts of runs within the run; `front` is the pidfd of this one's;
    `listener` is what a keeper before has served, or -1.
    """
    # Of what it was forked with, nothing becomes garbage.
    gc.freeze()
    gc.enable()
    try:
        _settle_in({channel.fileno(), joining.fileno(), front, listener})
        send_with_self(channel, {"armed": True})
        Serving(ServedRun(channel, front, facts), joining, page).run(listener)
    except BaseException as error:
        with suppress(OSError):
            send(channel, {"problem": describe_error(error)})
    finally:
        os._exit(0)


@final
class Serving:
    """Serves a run, and those within it: their fronts, and what the kernel notices of the tree."""

    def __init__(self, main: ServedRun, joining: socket.socket, page: SharedPage) -> None:
        self._main = main
        self._inner: list[ServedRun] = []
        self._joining = joining
        self._page = page
        #: As soon as there is something to watch, or the command has run for a moment.
        self._watch: Watch | None = None
        self._listener = -1
        #: When to load what is needed in the end; None if nothing was noticed since.
        self._ahead_at: float | None = None
        self._poll = select.poll()
        #: What is called with what has happened, by descriptor.
        self._handlers: dict[int, Callable[[int], object]] = {}

    def run(self, listener: int) -> None:
        """Serve until all of the first run is settled."""
        self._handle(self._joining.fileno(), lambda _: self._accept())
        self._serve_run(self._main)
        if listener >= 0:
            self._listen(listener)
        if self._page.store:
            # A keeper before had noted something.
            self._watch = self._start_watch()
        while self._main.done in self._handlers:
            # In a loop that makes things, the next call is there by now.
            events = self._poll.poll(0) or self._poll.poll(self._pause())
            for fd, happened in events:
                # One before may have closed it.
                if (handler := self._handlers.get(fd)) is not None:
                    handler(happened)
            if not events:
                # Nobody waits for an answer.
                self._watch = self._watch or self._start_watch()
                self._watch.sweep_others()
                self._watch.rows.look()
                self._load_ahead(self._watch)
        if self._watch is not None:
            self._watch.rows.close()
        self._main.tell_account()

    # -- what may happen -----------------------------------------------------

    def _serve_run(self, run: ServedRun) -> None:
        self._handle(run.channel.fileno(), lambda _: self._hear(run))
        self._handle(run.front, lambda _: self._lose_front(run))
        self._handle(run.done, lambda _: self._finish(run))

    def _hear(self, run: ServedRun) -> None:
        try:
            message, descriptors = receive(run.channel)
        except OSError:
            message, descriptors = {}, []
        if not message:
            # Its end is closed: if it lives, it has become another program.
            self._forget(run.channel.fileno())
            if not run.command:
                # Or could not start any.
                self._settle(run, None)
        elif "ended" in message:
            self._forget(run.front)
            self._settle(run, message["ended"])
        elif "hurry" in message:
            run.tree.hurry()
        elif "started" in message:
            run.command = message["started"]
            if self._watch is not None:
                self._watch.note_command(run)
        elif "note" in message:
            run.note(message["note"])
        elif "listener" in message:
            self._listen(descriptors.pop(0))
        for fd in descriptors:
            os.close(fd)

    def _lose_front(self, run: ServedRun) -> None:
        """Settle a run whose front was killed, as soon as all is heard that it has said."""
        channel = run.channel.fileno()
        if channel in self._handlers and is_readable(channel):
            return
        self._forget(run.front)
        # That of the first run ends those within it.
        if run is self._main or self._main.settling is None:
            self._settle(run, None)

    def _finish(self, run: ServedRun) -> None:
        for fd in (run.channel.fileno(), run.front, run.done):
            self._forget(fd)
        if run is not self._main:
            run.tell_account()
            self._inner.remove(run)
            if self._watch is not None:
                self._watch.remove(run)
            run.close()

    def _accept(self) -> None:
        """Let the front of a run within the run join, if it is of our user."""
        try:
            channel, _ = self._joining.accept()
        except OSError:
            return
        if peer_of(channel)[1] != os.geteuid():
            channel.close()
            return
        self._handle(channel.fileno(), lambda _: self._join(channel))

    def _join(self, channel: socket.socket) -> None:
        self._forget(channel.fileno())
        try:
            message, descriptors = receive(channel)
            front = descriptors[0]
            run = ServedRun(channel, front, RunFacts.from_json(message["join"]))
            send_with_self(channel, {"armed": True, "observes": self._main.tree.has_filter})
        except (OSError, LookupError, TypeError, ValueError):
            channel.close()
            return
        run.tree.has_filter = self._main.tree.has_filter
        self._inner.append(run)
        self._serve_run(run)
        if self._watch is not None:
            self._watch.add(run)

    def _listen(self, listener: int) -> None:
        self._listener = listener
        self._main.tree.has_filter = True
        if self._watch is not None:
            self._watch.listen(listener, self._page.memory)
        self._handle(listener, self._serve_listener)

    def _serve_listener(self, happened: int) -> None:
        if not happened & select.POLLIN:
            # Nobody is under the filter any more.
            self._forget(self._listener)
            return
        if self._watch is None:
            self._watch = self._start_watch()
            if not is_readable(self._listener):
                # A keeper before had received it, and it is answered by now.
                return
        self._watch.serve()
        if self._ahead_at is None:
            self._ahead_at = time.monotonic() + _LASTING

    # -- what is done --------------------------------------------------------

    def _start_watch(self) -> Watch:
        # Imported here: a command that has ended in a moment needs none of it.
        from probate.run.watching import Watch

        watch = Watch(self._main)
        watch.open(self._page.store)
        if watch.rows.folder is not None:
            self._page.set_store(str(watch.rows.folder))
        for run in (self._main, *self._inner):
            watch.add(run)
        if self._listener >= 0:
            watch.listen(self._listener, self._page.memory)
        return watch

    def _settle(self, run: ServedRun, status: int | None) -> None:
        """Settle, on a thread, while the tree is served; without a status, the front is dead."""
        if run.settling is None:
            run.settling = threading.Thread(target=self._end, args=(run, status), daemon=True)
            run.settling.start()

    def _end(self, run: ServedRun, status: int | None) -> None:
        inner = [*self._inner] if run is self._main else []
        try:
            run.account = end_run(run, inner, lambda: self._watch, status)
        except BaseException as error:
            problem = f"settling has failed, and a sweep tries again: {describe_error(error)}"
            run.account = RunAccount((), (*run.notes.values(), problem))
        os.eventfd_write(run.done, 1)

    def _load_ahead(self, watch: Watch) -> None:
        """Load what is needed in the end, if something was made that is there for a while."""
        if self._ahead_at is not None and self._ahead_at <= time.monotonic():
            if watch.rows.has_things(older_than=_LASTING):
                load_ahead()
                self._ahead_at = math.inf
            elif watch.rows.has_things():
                self._ahead_at = time.monotonic() + _LASTING
            else:
                # Whatever is noticed next looks again.
                self._ahead_at = None

    def _pause(self) -> float | None:
        """Return the milliseconds until something is to be done unasked; None for never."""
        watch = self._watch
        if self._main.settling is None and (watch is None or not watch.has_swept):
            return _MOMENT
        if watch is None:
            return None
        due = watch.rows.due
        if self._ahead_at is not None and self._ahead_at < due:
            due = self._ahead_at
        return None if due == math.inf else max(0.0, due - time.monotonic()) * 1000

    def _handle(self, fd: int, handler: Callable[[int], object]) -> None:
        self._poll.register(fd, select.POLLIN)
        self._handlers[fd] = handler

    def _forget(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)


def _settle_in(kept: set[int]) -> None:
    """Be a process that nobody's terminal, folder or pipe is held up by."""
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with suppress(OSError, KeyError):
        # It may be relative.
        os.environ["TMPDIR"] = os.path.abspath(os.environ["TMPDIR"])  # noqa: PTH100  not resolved
    os.chdir("/")
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    hold_only(kept)
    libc().prctl(_SET_NAME, b"probate-keeper", 0, 0, 0)
