"""The kinds that a run needs in the end: they know what the things are, and how they are removed.

All are loaded, since each may know whose a thing is; ahead of the end if that can be, since it
takes longer than all else that is done then.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from probate.plugins.registry import PluginRegistry

_lock: Final = threading.Lock()

#: Seconds for which a thread that imports keeps the one that serves from running, at most.
_TURN: Final = 0.0005


def kinds() -> PluginRegistry:
    """Return all kinds that are installed."""
    with _lock:
        return _load()


def load_ahead() -> None:
    """Load them on a thread of their own, once."""
    sys.setswitchinterval(_TURN)
    threading.Thread(target=kinds, daemon=True).start()


@functools.cache
def _load() -> PluginRegistry:
    # What uses them, with all that it imports: two threads must not do so at a time, since modules
    # that are half imported are seen then (the documentation of `importlib`).
    # Without looking for garbage, of which modules that are imported make none.
    gc.disable()
    try:
        import probate.settlement.settling  # noqa: F401  as above
        from probate.plugins.discovery import installed

        return installed()
    finally:
        # Nor would it be looked for among them later: to look once takes as long as two kinds do.
        gc.freeze()
        gc.enable()
