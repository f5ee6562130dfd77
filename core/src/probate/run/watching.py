"""Watch: what is noticed of a run's tree, and what becomes of it."""

from __future__ import annotations

from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from probate.journal.notice import Notice
from probate.journal.programs import sees_dead_hosts, sweeper
from probate.journal.reaper import start
from probate.journal.sysv import sysv_identity
from probate.run.intents import notice_of, temporary_folders
from probate.run.notices import Listener, attempt_of
from probate.run.onbehalf import SORTS, key_of, make_for
from probate.run.rows import RunRows, notice_of_process
from probate.system.osprocess import read_proc

if TYPE_CHECKING:
    import mmap

    from probate.run.notices import Held
    from probate.run.options import RunOptions
    from probate.run.tree import RunTree

#: Calls by which things are made that nobody sees, and what is said of them.
_UNSEEN: Final = {
    "": "{} is a 32-bit program: what it made by a name is not seen",
    "io_uring_setup": "{} has an io_uring: what it made by that is not seen",
    "seccomp": "{} was refused a listener of its own (seccomp_unotify(2)): --observe none lets it "
    "have one",
}
_UNREAD: Final = "{} does not let its memory be read: what it made by a name is not seen"


@final
class Watch:
    """Takes note of what a tree is about to make. For one thread, but for `rows`."""

    def __init__(self, tree: RunTree, options: RunOptions) -> None:
        self._tree = tree
        self._options = options
        self._temporary = temporary_folders()
        self.rows = RunRows()
        self.listener: Listener | None = None
        self._has_swept = False
        #: The number of the row of the command.
        self.owner = 0
        #: What is to be said of whom, once each.
        self._said: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        """What the account is to say."""
        problem = self.rows.problem
        lost = [f"not all was noted in the journal: {problem}"] if problem else []
        return [*self._said.values(), *lost]

    def open(self, front: int, inherited: str) -> None:
        """Make a store, or go on with that of a keeper before, in that folder."""
        try:
            if inherited:
                self.owner = self.rows.take_over(Path(inherited))
            else:
                self.rows.open(front)
                self.owner = self.rows.add_owner(" ".join(self._options.argv))
        except (OSError, ValueError) as error:
            self._said["journal"] = (
                f"no journal can be kept ({error}): should the keeper die too, nobody gives back "
                "what the command leaves"
            )

    def note_command(self, os_pid: int, tag: int) -> None:
        """Note which OS process the command is."""
        # It may have ended, and been reaped, already.
        with suppress(OSError):
            self._tree.pin(os_pid)
            if not self.rows.has_command(self.owner):
                name = self._options.argv[0]
                self.rows.intend(self.owner, notice_of_process("exec", os_pid, name, tag))

    def sweep_others(self) -> None:
        """Have it settled what dead hosts have left, if there are any; once."""
        folder = self.rows.folder
        if folder is not None and not self._has_swept and sees_dead_hosts(folder):
            start(sweeper(folder))
        self._has_swept = True

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
                self._say(_UNREAD, held.tid)
        except (OSError, ValueError, StopIteration):
            # It has just been killed, or its call is going to fail.
            pass
        finally:
            if value is None:
                listener.let_go(held.id)
            else:
                listener.answer(held.id, value)

    def _take_note(self, listener: Listener, held: Held) -> int | None:
        """Note what a call is about to make; return the id of what was made for it."""
        if held.call in _UNSEEN:
            self._say(_UNSEEN[held.call], held.tid)
            return None
        os_pid = self._tree.pin(held.tid)
        if held.call == "setsid":
            self.rows.intend(self.owner, notice_of_process("setsid", os_pid))
        elif held.call in SORTS:
            return self._make(held, os_pid)
        elif (attempt := attempt_of(held)) is not None:
            notice = notice_of(held.tid, os_pid, attempt, self._temporary)
            # What was read of it was its own only if it is held still.
            if notice is not None and listener.is_held(held.id):
                self._intend(notice)
        return None

    def _make(self, held: Held, os_pid: int) -> int | None:
        """Make a System V object for a program; None if that is to do it itself."""
        id_ = make_for(held)
        if id_ is not None:
            identity = sysv_identity(SORTS[held.call], id_)
            name = f"{key_of(held) & 0xFFFFFFFF:#x}"
            self._intend(Notice(held.call, os_pid, name, identity, state="confirmed"))
        return id_

    def _intend(self, notice: Notice) -> None:
        for pattern in self._options.keep:
            if fnmatchcase(notice.name, pattern) or fnmatchcase(notice.basename, pattern):
                return
        self.rows.intend(self.owner, notice, is_noted=self._options.settle != "report")

    def _say(self, text: str, tid: int) -> None:
        try:
            name = read_proc(f"/proc/{tid}/comm").decode(errors="backslashreplace").strip()
        except OSError:
            name = "a program"
        self._said.setdefault(text + name, text.format(f"{name} (pid {tid})"))
