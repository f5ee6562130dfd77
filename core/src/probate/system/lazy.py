"""Modules and public names that are imported when they are first used.

This is for what is slow to import and needed by some resources only, or only once there is one.
What a release uses must have been imported by then, since whoever releases may have no descriptor
left to import it with. asyncio and `probate.models` always have: an orchestrator loads them before
anything can be owned.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_module(name: str) -> Any:
    """Stand in for module `name`, and import it at the first attribute that is asked for.

    Checkers are shown the import itself:

    if TYPE_CHECKING:
        import asyncio
    else:
        asyncio = lazy_module("asyncio")
    """
    return _Lazy(name)


def by_name(names: Mapping[str, str]) -> dict[str, str]:
    """Turn module to names, blank between them, into name to module, sorted."""
    return dict(sorted((name, home) for home, each in names.items() for name in each.split()))


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Make the `__getattr__` of a package that loads each public name at its first use (PEP 562).

    `homes` says in which module each name is; the package's `if TYPE_CHECKING` block says the
    same to checkers, and a test compares the two.
    """

    def load(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(home)
        value: object = module if home == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return load


@final
class _Lazy:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        # The next look finds it here, as fast as in the module.
        setattr(self, attribute, value)
        return value
