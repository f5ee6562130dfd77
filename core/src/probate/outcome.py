"""What can become of a resource and of a plugin, and the number that names a resource."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NewType

#: Names one resource for as long as the interpreter lives; never reused.
ResourceId = NewType("ResourceId", int)


class Outcome(StrEnum):
    """The end of one release, as the account states it."""

    #: Given back by us, just now.
    RELEASED = "released"
    #: Somebody gave it back before: nothing to do, nothing counted, no error.
    ALREADY_GONE = "already gone"
    #: Still in use. It stays owned and is tried again after the other kinds.
    BUSY = "busy"
    #: Did not come free in time. It stays owned.
    TIMEOUT = "timeout"
    #: The release went wrong. It is tried once, never replayed.
    FAILED = "failed"
    #: Not ours, or still in use by others: left as it was.
    REFUSED = "refused"
    #: Owned by another process by now.
    TRANSFERRED = "transferred"

    @property
    def is_error(self) -> bool:
        """Whether the account counts it as an error."""
        return self in _ERRORS

    @property
    def stays_owned(self) -> bool:
        """Whether the owner keeps the resource, so that it can be tried again."""
        return self in _STAYS_OWNED


def checked_outcome(answer: object) -> Outcome:
    """The outcome that a release has returned; None is RELEASED. Raises TypeError."""
    if answer is None:
        return Outcome.RELEASED
    if not isinstance(answer, Outcome):
        raise TypeError(f"a release returns a probate.Outcome or None, got {answer!r}")
    return answer


_STAYS_OWNED: Final = frozenset({Outcome.BUSY, Outcome.TIMEOUT})
_ERRORS: Final = _STAYS_OWNED | {Outcome.FAILED, Outcome.REFUSED}


class PluginStatus(StrEnum):
    """What became of an entry point that was found."""

    LOADED = "loaded"
    #: Asked for by nobody, or switched off by name; never imported.
    DISABLED = "disabled"
    #: Another distribution serves the same kind.
    DUPLICATE = "duplicate"
    #: Its distribution asks for another version of the core; never imported.
    INCOMPATIBLE = "incompatible"
    #: Its import, constructor or contract went wrong.
    FAILED = "failed"
