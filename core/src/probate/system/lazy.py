"""Modules that are imported when they are first used.

For what is slow to import, and needed by some resources only, or only once there is one. What a
release uses must be there by then: whoever releases may have no descriptor left to import it with.
asyncio and `probate.models` always are, since an orchestrator loads them before anything can be
owned.
"""

from __future__ import annotations

import importlib
from typing import Any, final


def lazy_module(name: str) -> Any:
    """A stand-in for module `name`; checkers are to be shown the import itself.

    if TYPE_CHECKING:
        import asyncio
    else:
        asyncio = lazy_module("asyncio")
    """
    return _Lazy(name)


@final
class _Lazy:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        # The next look finds it here, as fast as in the module.
        setattr(self, attribute, value)
        return value
