"""Names that may have been meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `name` may be a misspelling of; None if none is near."""
    # Imported here: only a misspelling needs it.
    import difflib

    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)
