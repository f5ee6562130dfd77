"""The process that a context works for, without what a process is, which is slow to import."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from contextvars import Token

#: Each asyncio task and thread has its own (PEP 567): a `Process`, or None.
CURRENT: Final[ContextVar[Any]] = ContextVar("probate_current_process", default=None)


def be_as_before(token: Token[Any]) -> None:
    """Make that process the current one, or none, which was so before `token` was got."""
    # Left in another context than it was entered in (an async generator that its loop
    # finalises, another thread): there is nothing to reset there (PEP 567).
    with contextlib.suppress(ValueError):
        CURRENT.reset(token)
