"""What goes wrong with scheduling.

ProbateError
└── ReaperUnavailableError   nobody could continue what is stopped (also a RuntimeError)
"""

from __future__ import annotations

from typing import final

from probate import ProbateError


@final
class ReaperUnavailableError(ProbateError, RuntimeError):
    """There is no reaper, so nothing is stopped: it might stay so after this host's death."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"no OS process is stopped without a reaper, and it could not be started: {problem}; "
            "as many processes as there are slots can be scheduled without"
        )
