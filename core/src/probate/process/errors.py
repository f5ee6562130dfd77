"""The exceptions about a process manager as a whole."""

from __future__ import annotations

from typing import final

from probate.errors import ProbateError


@final
class ManagerClosedError(ProbateError, RuntimeError):
    """Raised when a manager that is closed, or just being closed, is to go on.

    By whatever starts a process, as a supervisor does which replaces one that has died: it ends.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"the process manager is closed: {what}")


@final
class LeaseExpiredError(ProbateError, RuntimeError):
    """Raised for a renewal that comes too late: all is being ended, or has been."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the lease of {seconds:g} s was not renewed in time: all processes are ended; "
            "build a new manager"
        )
