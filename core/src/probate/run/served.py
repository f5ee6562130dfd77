"""ServedRun: one run, as its keeper has it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, final

from probate.run.account import RunAccount
from probate.run.messages import send_text

if TYPE_CHECKING:
    import socket
    import threading

    from probate.run.facts import RunFacts


@final
class ServedRun:
    """One run: its front, its command and its tree."""

    def __init__(self, channel: socket.socket, front: int, facts: RunFacts) -> None:
        self.channel = channel
        #: The pidfd of the front.
        self.front = front
        self.facts = facts
        self.tree = facts.tree()
        #: The pid of the command; 0 before it is started.
        self.command = 0
        #: The number of its row in the journal; 0 if there is none yet.
        self.owner = 0
        #: What is to be said in the account, by what it is about.
        self.notes: dict[str, str] = {}
        #: Settles it, when it has ended; and what came of that.
        self.settling: threading.Thread | None = None
        self.account = RunAccount()
        #: Readable when all is settled.
        self.done = os.eventfd(0)

    def note(self, text: str) -> None:
        """Have something said in the account, once."""
        self.notes.setdefault(text, text)

    def tell_account(self) -> None:
        """Tell the front, if it is there, what became of all."""
        with suppress(OSError):
            send_text(self.channel, "account", self.account.to_json())

    def close(self) -> None:
        """Let go of it."""
        self.channel.close()
        self.tree.close()
        for fd in (self.front, self.done):
            os.close(fd)
