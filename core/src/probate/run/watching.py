"""Watch: what is noticed of a run's tree, and what becomes of it."""

from __future__ import annotations

import errno
import threading
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from probate.journal.notice import Notice
from probate.journal.programs import sweep_beside
from probate.journal.reaper import start
from probate.journal.sysv import sysv_identity
from probate.run.intents import notice_of, temporary_folders
from probate.run.notices import Listener, attempt_of
from probate.run.onbehalf import SORTS, key_of, make_for
from probate.run.processnotices import notice_of_process
from probate.run.rows import RunRows
from probate.system.osprocess import read_proc
from probate.system.tagging import tag_of

if TYPE_CHECKING:
    import mmap

    from probate.run.notices import Held
    from probate.run.served import ServedRun

#: How long the name of a run is, at most, in the journal.
_MOST_CHARACTERS: Final = 200

#: Calls by which things are made that nobody sees, and what is said of them.
_UNSEEN: Final = {
    "": "{} is a 32-bit program: what it made by a name is not seen",
    "io_uring_setup": "{} has an io_uring: what it made by that is not seen",
    "seccomp": "{} was refused a listener of its own (seccomp_unotify(2)): --observe none lets it "
    "have one",
}
_UNNOTED: Final = (
    "no descriptor was free as something was made by name, which is not given back: raise "
    "`ulimit -n`"
)
_UNREAD: Final = (
    "{} does not let its memory be read (by itself, or kernel.yama.ptrace_scope is above 0): what "
    "it made by a name is not seen"
)


@final
class Watch:
    """Takes note of what a tree is about to make. For one thread, but for `rows` and the lock."""

    def __init__(self, main: ServedRun) -> None:
        self._main = main
        #: Those within it, by their tags.
        self._inner: dict[int, ServedRun] = {}
        self._temporary = temporary_folders()
        self.rows = RunRows()
        #: Held by whoever gives back: all of one keeper do that by the same folders.
        self.giving_back = threading.Lock()
        self.listener: Listener | None = None
        #: Whether it was looked for what dead hosts have left.
        self.has_swept = False

    def open(self, inherited: str) -> None:
        """Make a store, or go on with that of a keeper before, in that folder."""
        try:
            if inherited:
                self.rows.take_over(Path(inherited))
            else:
                self.rows.open(self._main.facts.front)
        except (OSError, ValueError, MemoryError) as error:
            self._main.note(
                f"no journal can be kept ({error}): should the keeper die too, nobody gives back "
                "what the command leaves"
            )

    def add(self, run: ServedRun) -> None:
        """Watch over a run, or one within it, too."""
        if run is not self._main:
            self._inner[run.facts.tag] = run
        name = " ".join(run.facts.options.argv)[:_MOST_CHARACTERS]
        run.owner = self.rows.owner(name, run.facts.nonce)
        if run.command:
            self.note_command(run)

    def remove(self, run: ServedRun) -> None:
        """Let go of a run within the run: what its processes still make is that one's."""
        self._inner.pop(run.facts.tag, None)

    def note_command(self, run: ServedRun) -> None:
        """Note which OS process the command of a run is."""
        # It may have ended, and been reaped, already.
        with suppress(OSError):
            run.tree.pin(run.command)
            if not self.rows.has_command(run.owner):
                name = run.facts.options.argv[0]
                notice = notice_of_process("exec", run.command, name, run.facts.tag)
                self.rows.intend(run.owner, notice)

    def sweep_others(self) -> None:
        """Have it settled what dead hosts have left, if there are any; once."""
        folder = self.rows.folder
        if folder is not None and not self.has_swept:
            sweep_beside(folder, start, None)
        self.has_swept = True

    def listen(self, fd: int, page: mmap.mmap) -> None:
        """Serve a listener from now on; first, what a keeper before has not answered."""
        self.listener = Listener(fd, page)
        if (held := self.listener.unanswered()) is not None:
            self._handle(self.listener, held)

    def serve(self) -> None:
        """Serve the next call that is held."""
        if self.listener is not None and (held := self.listener.receive()) is not None:
            self._handle(self.listener, held)

    # -- inside --------------------------------------------------------------

    def _handle(self, listener: Listener, held: Held) -> None:
        value = None
        try:
            value = self._take_note(listener, held)
        except PermissionError:
            if listener.is_held(held.id):
                _say(self._run_of(held.tid), _UNREAD, held.tid)
        except OSError as error:
            # Or else it has just been killed, or its call is going to fail.
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._run_of(held.tid).note(_UNNOTED)
        except (ValueError, StopIteration):
            pass
        finally:
            if value is None:
                listener.let_go(held.id)
            else:
                listener.answer(held.id, value)

    def _take_note(self, listener: Listener, held: Held) -> int | None:
        """Note what a call is about to make; return the id of what was made for it."""
        run = self._run_of(held.tid)
        if held.call in _UNSEEN:
            _say(run, _UNSEEN[held.call], held.tid)
            return None
        os_pid = run.tree.pin(held.tid)
        if held.call == "setsid":
            self.rows.intend(run.owner, notice_of_process("setsid", os_pid))
        elif held.call in SORTS:
            return self._make(run, held, os_pid)
        elif (attempt := attempt_of(held)) is not None:
            notice = notice_of(held.tid, os_pid, attempt, self._temporary)
            # What was read of it was its own only if it is held still.
            if notice is not None and listener.is_held(held.id):
                self._intend(run, notice, held.tid)
        return None

    def _run_of(self, tid: int) -> ServedRun:
        """Return the innermost run that a thread is of."""
        if not self._inner:
            return self._main
        tag = tag_of(tid)
        return self._main if tag is None else self._inner.get(tag, self._main)

    def _make(self, run: ServedRun, held: Held, os_pid: int) -> int | None:
        """Make a System V object for a program; None if that is to do it itself."""
        id_ = make_for(held)
        if id_ is not None:
            identity = sysv_identity(SORTS[held.call], id_)
            name = f"{key_of(held) & 0xFFFFFFFF:#x}"
            notice = Notice(held.call, os_pid, name, identity, state="confirmed")
            self._intend(run, notice, held.tid)
        return id_

    def _intend(self, run: ServedRun, notice: Notice, tid: int) -> None:
        if notice.call == "mkdir" and not notice.is_temporary:
            self.rows.note_within(notice)
            return
        options = run.facts.options
        for pattern in options.keep:
            if fnmatchcase(notice.name, pattern) or fnmatchcase(notice.basename, pattern):
                return
        self.rows.intend(run.owner, notice, tid=tid, is_noted=options.settle != "report")


def _say(run: ServedRun, text: str, tid: int) -> None:
    """Have it said in the account what is not seen of whom, once for each program."""
    try:
        name = read_proc(f"/proc/{tid}/comm").decode(errors="backslashreplace").strip()
    except OSError:
        name = "a program"
    run.notes.setdefault(text + name, text.format(f"{name} (pid {tid})"))
