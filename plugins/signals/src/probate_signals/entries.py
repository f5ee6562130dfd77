"""What a process can own of this kind. Each is one entry in the ownership table."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from probate_signals.signums import name_of

if TYPE_CHECKING:
    from probate_signals.delivery import HandlerFunction


@final
class Handler:
    """A function registered for a signal. The same function may be registered many times."""

    __slots__ = ("function", "pid", "signum")

    def __init__(self, pid: int, signum: int, function: HandlerFunction) -> None:
        self.pid = pid
        self.signum = signum
        self.function = function

    def __str__(self) -> str:
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"handler {name} of {name_of(self.signum)}"


@final
class Blocked:
    """A signal that is queued for its process instead of being delivered."""

    __slots__ = ("has_arrival", "pid", "signum")

    def __init__(self, pid: int, signum: int) -> None:
        self.pid = pid
        self.signum = signum
        #: Whether one that the kernel delivered is queued: a second is the same one (signal(7)).
        self.has_arrival = False

    def __str__(self) -> str:
        return f"{name_of(self.signum)} blocked"


@final
class Pending:
    """A signal that waits for its process to unblock it."""

    __slots__ = ("pid", "signum")

    def __init__(self, pid: int, signum: int) -> None:
        self.pid = pid
        self.signum = signum

    def __str__(self) -> str:
        return f"{name_of(self.signum)} pending"


Entry = Handler | Blocked | Pending
