"""How a tmux server is asked, and how a session is found again: by a mark that no other has."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate import BusyResourceError, Outcome, ProbateError, RefusedResourceError
from probate.journal import boot_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from probate import ResourceRecord

#: The option of a session that says whose it is; those that begin with @ are users' (tmux(1)).
MARK: Final = "@probate"

#: Seconds that a server gets to answer.
_ALLOWANCE: Final = 10.0

#: What a client says if there is no server, or it was just about to end with its last session.
_NOBODY: Final = ("no server running", "error connecting to", "server exited", "lost server")

#: What a kill says, since a client's exit code is that of the question.
_KILLED: Final = "killed"

#: Has a client end with whoever asks, so that nothing is begun for a host that is dead.
_END_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")


class TmuxError(ProbateError):
    """Raised for what tmux refuses, in its own words, and where there is no tmux."""


@final
class Session(NamedTuple):
    """One session. Its id, such as "$3", is never another's while its server runs."""

    name: str
    id: str
    #: Drawn for it alone, and kept by its server.
    mark: str


class NoServerError(TmuxError):
    """Raised where there is no server, and so no session."""


class NoAnswerError(TmuxError):
    """Raised where nobody can tell what the server has done, or will do."""


@final
class Server(NamedTuple):
    """A server, by the folder and the name of its socket (tmux(1), TMUX_TMPDIR and -L)."""

    folder: str
    label: str

    def ask(self, *command: str) -> str:
        """Have a command carried out; return what it prints.

        Raises NoServerError, NoAnswerError, or TmuxError, which has what it says.
        """
        environment = {**os.environ, "TMUX_TMPDIR": self.folder}
        # Within another session it would be asked for by this one.
        environment.pop("TMUX", None)
        first = _END_WITH_US if shutil.which(_END_WITH_US[0]) else ()
        try:
            ran = subprocess.run(  # noqa: S603  no shell
                [*first, "tmux", "-f", os.devnull, "-L", self.label, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_ALLOWANCE,
                check=False,
            )
        except FileNotFoundError:
            raise TmuxError("there is no tmux here") from None
        except subprocess.TimeoutExpired:
            raise NoAnswerError(f"tmux has not answered for {_ALLOWANCE:g} s") from None
        if ran.returncode:
            said = ran.stderr.strip() or f"it ended with {ran.returncode}"
            raise (NoServerError if said.startswith(_NOBODY) else TmuxError)(said)
        return ran.stdout.strip()

    def find(self, mark: str) -> tuple[str, int] | None:
        """Find a session by its mark: its id, and how many are attached; None if it is gone."""
        try:
            lines = self.ask(
                "list-sessions", "-F", f"#{{session_id}} #{{session_attached}} #{{{MARK}}}"
            )
        except NoServerError:
            return None
        for id_, attached, *marks in map(str.split, lines.splitlines()):
            if marks == [mark]:
                return id_, int(attached)
        return None

    def kill(self, mark: str, *, dry_run: bool = False) -> Outcome:
        """Kill the session of this mark, unless somebody is attached to it.

        Raises BusyResourceError, TmuxError.
        """
        found = self.find(mark)
        if found is None:
            return Outcome.ALREADY_GONE
        id_, attached = found
        if not attached:
            if dry_run:
                return Outcome.RELEASED
            # All of it is the server's one step: nobody can attach in between.
            is_it = f"#{{&&:#{{==:#{{{MARK}}},{mark}}},#{{==:#{{session_attached}},0}}}}"
            kill = f"display-message -p {_KILLED} ; kill-session -t '{id_}'"
            try:
                if self.ask("if-shell", "-F", "-t", f"{id_}:", is_it, kill) == _KILLED:
                    return Outcome.RELEASED
            except TmuxError:
                # It is gone, or its server; or who is to blame is seen by the next look.
                pass
            if (found := self.find(mark)) is None:
                return Outcome.ALREADY_GONE
        raise BusyResourceError(f"still attached by {found[1]} of tmux's clients")


def reclaim(record: ResourceRecord, dry_run: bool) -> Outcome:
    """Kill a session whose owner has died, unless somebody is attached to it."""
    identity: Mapping[str, Any] = record.identity
    if identity["boot"] != boot_id():
        return Outcome.ALREADY_GONE
    try:
        return Server(identity["folder"], identity["label"]).kill(identity["mark"], dry_run=dry_run)
    except TmuxError as error:
        raise RefusedResourceError(f"its server cannot be asked: {error}") from error
