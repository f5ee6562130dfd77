"""What became of what a command has left: made by the keeper, told by the front."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How long a text is, at most: the program has chosen it.
_WIDTH: Final = 1024

#: How many things are told in one line; of more, it says how many they are.
FEW: Final = 3

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
                    thing._replace(
                        description=bounded(thing.description), text=bounded(thing.text)
                    )._asdict()
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
        """Say in one line what was given back, and what is still there; empty if there is nothing.

        Few things are named, and why each is still there; more are counted.
        """
        gone = [each.description for each in self.settled if not each.is_kept]
        kept = [f"{each.description} ({each.text})" for each in self.settled if each.is_kept]
        are_few = len(self.settled) <= FEW
        return "; ".join(
            f"{what} {', '.join(map(bounded, texts)) if are_few else _counted(texts)}"
            for what, texts in (("gave back", gone), ("left", kept))
            if texts
        )


def bounded(text: str) -> str:
    """Cut a text that is too long."""
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _counted(texts: Sequence[str]) -> str:
    return f"{len(texts)} thing{'s' if len(texts) > 1 else ''}"
