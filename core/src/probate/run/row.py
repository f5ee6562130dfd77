"""One row of what a run has made, and when it is looked at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from probate.journal.notice import Notice


@final
class RunRow:
    """Whose something is, and what it is."""

    __slots__ = (
        "call",
        "is_gone",
        "is_noted",
        "is_waiting",
        "looks",
        "notice",
        "owner",
        "since",
        "tid",
    )

    def __init__(
        self, owner: int, notice: Notice, *, tid: int = 0, call: int = 0, is_noted: bool = True
    ) -> None:
        self.owner = owner
        self.notice = notice
        #: Which thread has called, and the number of its call; 0 if that is not known.
        self.tid = tid
        self.call = call
        #: Whether it stands in the store.
        self.is_noted = is_noted
        #: When its call was let go, or never for what has gone; and how often it was looked for.
        self.since = time.monotonic()
        self.looks = 0
        #: Whether it will be looked for.
        self.is_waiting = False
        #: Whether its name was taken away: what has it now is another.
        self.is_gone = False
