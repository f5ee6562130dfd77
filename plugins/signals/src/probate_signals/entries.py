"""What a process can own of this kind. Each is one entry in the ownership table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from probate_signals.signums import name_of

if TYPE_CHECKING:
    from probate_signals.delivery import HandlerFunction


@final
@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """A function registered for a signal. The same function may be registered many times."""

    pid: int
    signum: int
    function: HandlerFunction

    def __str__(self) -> str:
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"handler {name} of {name_of(self.signum)}"


@final
@dataclass(slots=True, eq=False)
class Blocked:
    """A signal that is queued for its process instead of being delivered."""

    pid: int
    signum: int
    #: Whether one that the kernel delivered is queued: a second is the same one (signal(7)).
    has_arrival: bool = False

    def __str__(self) -> str:
        return f"{name_of(self.signum)} blocked"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A signal that waits for its process to unblock it."""

    pid: int
    signum: int

    def __str__(self) -> str:
        return f"{name_of(self.signum)} pending"


Entry = Handler | Blocked | Pending
