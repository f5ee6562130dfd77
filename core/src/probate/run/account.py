"""What became of what a command has left: made by the keeper, told by the front."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How long a text is, at most: the program has chosen it.
_WIDTH: Final = 1024

#: How many things are named in one line; of more, only how many they are.
_NAMED: Final = 3

#: What was given back, as `probate.Outcome` says it; all else is still there.
_GONE: Final = ("released", "already gone")


@final
class SettledThing(NamedTuple):
    """Says what became of one thing."""

    #: The kind of plugin that knows such things, "memory"; "processes" for OS processes.
    kind: str
    #: What it is, for people: "segment /psm_4f1c".
    description: str
    #: The OS process that made it, or that it is; None if that is not known.
    os_pid: int | None
    #: How that is known: "made", "notified", "held" or "name", as of `ResourceRecord`.
    evidence: str
    #: What became of it, as `probate.Outcome` says it.
    outcome: str
    #: Why it is still there; empty if it is not.
    text: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether it is still there, as far as is known."""
        return self.outcome not in _GONE


@final
class RunAccount(NamedTuple):
    """Says what became of all that a command has left."""

    #: In the order in which it was settled.
    settled: tuple[SettledThing, ...] = ()
    #: What else is to be known: what could not be seen and why, with the way out.
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.settled and not self.notes

    def to_json(self) -> str:
        """Write it as one line of JSON: what is no ASCII in backslashes, each text bounded."""
        return json.dumps(
            {
                "settled": [
                    {name: bounded(value) for name, value in thing._asdict().items()}
                    for thing in self.settled
                ],
                "notes": [bounded(note) for note in self.notes],
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> RunAccount:
        """Read what `to_json` has written. Raises ValueError, KeyError, TypeError."""
        read = json.loads(text)
        return cls(
            tuple(SettledThing(**thing) for thing in read["settled"]),
            tuple(map(str, read["notes"])),
        )

    def summary(self) -> str:
        """Say in a line what was given back and how much is still there; empty if nothing was."""
        gone = [thing for thing in self.settled if not thing.is_kept]
        kept = [thing for thing in self.settled if thing.is_kept]
        parts = []
        if gone:
            parts.append(f"gave back {_named(thing.description for thing in gone)}")
        if kept:
            parts.append(f"left {_named(f'{each.description} ({each.text})' for each in kept)}")
        return "; ".join(parts)


def bounded(value: object) -> object:
    """Cut a text that is too long; return all else as it is."""
    if isinstance(value, str) and len(value) > _WIDTH:
        return f"{value[: _WIDTH - 3]}..."
    return value


def _named(texts: Iterable[str]) -> str:
    named = [str(bounded(text)) for text in texts]
    more = f", and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more
