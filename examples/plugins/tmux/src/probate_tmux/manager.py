"""TmuxManager: sessions on a tmux server, which a process owns."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from probate import BusyResourceError, Outcome, OwnershipTable, UnsettledResourceError
from probate.journal import Named
from probate_tmux.server import MARK, NoAnswerError, NoServerError, Server, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What tmux takes for a name alone, and as it is.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")

#: How often a session is asked for while the server ends with its last one.
_TRIES: Final = 20


@final
class TmuxManager:
    """Makes terminal sessions on a tmux server of its own, which runs while there are any.

    `label` names the server's socket (`tmux -L LABEL attach`); it is in TMUX_TMPDIR, as tmux(1)
    has it. Thread-safe.
    """

    def __init__(self, label: str = "probate") -> None:
        self.server = Server(os.path.realpath(os.environ.get("TMUX_TMPDIR") or "/tmp"), label)  # noqa: S108  tmux's
        self.table: OwnershipTable[Session] = OwnershipTable(
            "tmux", self._kill, describe=lambda session: f"session {session.name}"
        )

    def create_session(
        self, pid: int, *command: str, name: str | None = None, folder: str | None = None
    ) -> Session:
        """Make a session for `pid`, in which a command runs, or a shell; nobody is attached to it.

        Its name is random unless it is asked for; it runs in `folder`, or where this process is.
        Raises ValueError for a name that tmux would change, or take for something else; TmuxError
        if it is taken; UnsettledResourceError if tmux does not answer, so that nobody knows.
        """
        mark = os.urandom(8).hex()
        name = f"probate-{mark}" if name is None else name
        if not _NAME.fullmatch(name):
            raise ValueError(f"a session is named by letters, digits, - and _, not {name!r}")
        # The mark tells it, whatever its name: no other has it, and it is known before.
        before = {"folder": self.server.folder, "label": self.server.label, "mark": mark}
        named = Named[Session](f"tmux session {name}", before, lambda _made: {})
        make = partial(self._make, command, name, mark, folder or str(Path.cwd()))
        return self.table.acquire(pid, make, named=named)

    def close(self, pid: int, session: Session) -> None:
        """Kill a session before the end. Raises NotOwnedError, and BusyResourceError."""
        self.table.give_back(pid, session)

    # -- inside --------------------------------------------------------------

    def _make(self, command: Sequence[str], name: str, mark: str, folder: str) -> Session:
        # One message to the server: where there is a session, there is its mark.
        asked = ["new-session", "-d", "-P", "-F", "#{session_id}", "-s", name, "-c", folder]
        # What ends in ; would end the command (tmux(1), "Command parsing and execution").
        asked += ["--", *(f"{each[:-1]}\\;" if each.endswith(";") else each for each in command)]
        asked += [";", "set-option", "-t", f"={name}:", MARK, mark]
        for tries_left in reversed(range(_TRIES)):
            try:
                return Session(name, self.server.ask(*asked), mark)
            except NoServerError:
                if not tries_left:
                    raise
            except NoAnswerError as error:
                raise UnsettledResourceError(
                    f"{error}; if it makes session {name}, a sweep kills that when this process "
                    "has ended"
                ) from error
        raise AssertionError

    def _kill(self, session: Session) -> Outcome:
        try:
            return self.server.kill(session.mark)
        except NoAnswerError as error:
            raise BusyResourceError(str(error)) from error
