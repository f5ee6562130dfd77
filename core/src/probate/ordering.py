"""Ordering: the place of a kind in the cleanup order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Ordering:
    """Says when a kind is cleaned up, in comparison with other kinds.

    The highest `priority` comes first; of equals, the alphabetically last kind. `before` and
    `after` name kinds and override priority: a kind moves up to just before those in `before`,
    and down to just after those in `after`. Kinds that are not installed are ignored.

    Raises TypeError for a priority that is no int, or a `before`/`after` that is no tuple or list
    of kind names.
    """

    priority: int
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.priority, int) or isinstance(self.priority, bool):
            raise TypeError(f"priority must be an int, got {self.priority!r}")
        for field in ("before", "after"):
            kinds = getattr(self, field)
            if not isinstance(kinds, (tuple, list)) or not all(isinstance(k, str) for k in kinds):
                raise TypeError(f"{field} must be a tuple of kind names, got {kinds!r}")
            object.__setattr__(self, field, tuple(kinds))
