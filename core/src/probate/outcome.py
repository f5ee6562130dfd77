"""What can become of a resource and of a plugin; the id of a resource."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NewType

#: Names one resource; never reused while the interpreter runs.
ResourceId = NewType("ResourceId", int)


class Outcome(StrEnum):
    """Says how one release ended; a release function returns it, and accounts state it."""

    #: Given back just now, by this release.
    RELEASED = "released"
    #: Given back before, by somebody else. It is not counted, and no error.
    ALREADY_GONE = "already gone"
    #: Still in use. It stays owned, and is tried again after the other kinds.
    BUSY = "busy"
    #: Not free in time. It stays owned.
    TIMEOUT = "timeout"
    #: Gone wrong. A release is called once and never repeated.
    FAILED = "failed"
    #: Left as it was, since it is not ours, or still in use by others.
    REFUSED = "refused"
    #: Owned by another process by now.
    TRANSFERRED = "transferred"
    #: Not known yet: somebody else is to end it, as the message says, who and by when. It is left
    #: to them, and an error until it is known.
    UNSETTLED = "unsettled"

    @property
    def is_error(self) -> bool:
        """Whether accounts count it as an error."""
        return self in _ERRORS

    @property
    def stays_owned(self) -> bool:
        """Whether the owner keeps the resource, so that it can be tried again."""
        return self in _STAYS_OWNED


def checked_outcome(answer: object) -> Outcome:
    """Return the outcome that a release has returned, where None means RELEASED.

    Raises TypeError for anything else.
    """
    if answer is None:
        return Outcome.RELEASED
    if not isinstance(answer, Outcome):
        raise TypeError(f"a release returns a probate.Outcome or None, got {answer!r}")
    return answer


_STAYS_OWNED: Final = frozenset({Outcome.BUSY, Outcome.TIMEOUT})
_ERRORS: Final = _STAYS_OWNED | {Outcome.FAILED, Outcome.REFUSED, Outcome.UNSETTLED}


class PluginStatus(StrEnum):
    """Says what became of an entry point that was found."""

    LOADED = "loaded"
    #: Not asked for, or disabled by name; never imported.
    DISABLED = "disabled"
    #: Another distribution serves the same kind.
    DUPLICATE = "duplicate"
    #: Its distribution asks for another version of the core; never imported.
    INCOMPATIBLE = "incompatible"
    #: Its import or its constructor raised, or it does not keep the contract.
    FAILED = "failed"
