"""Where a resource was acquired, for the leak report."""

from __future__ import annotations

import traceback
from typing import Final

#: Frames kept of an acquisition's stack; the innermost ones tell the most.
_DEPTH: Final = 12

#: Frames of the table itself, and of this module.
_OURS: Final = 3


def acquisition_site() -> str:
    """Return the stack of whoever acquires, as a traceback shows it."""
    frames = traceback.extract_stack(limit=_DEPTH + _OURS)[:-_OURS]
    return "".join(traceback.format_list(frames))
