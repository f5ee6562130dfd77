"""Helpers for tests of plugins and of what uses them.

conformance/  whether a kind keeps the contract
witness.py    KernelView: what the kernel says this OS process holds

`pytest --probate-leaks` (docs/leaks.md):

plugin.py      options, marker and fixtures: all that an ordinary session imports
leaks.py       the looks before and after a test, and the verdict
held.py        what this process holds, as it is compared
traced.py      what a test acquires, by audit events: names, and where
wrapped.py     the same, by functions that raise none
sites.py       a place in the code, and whose it is
keepers.py     who keeps what is left, though not the test: caches, fixtures
describing.py  what is left, in words

Importing this package imports little: pytest does, wherever Probate is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from probate.system.lazy import by_name, lazy_names

if TYPE_CHECKING:
    from probate.testing.conformance.cases import ConformanceCase as ConformanceCase
    from probate.testing.conformance.cases import check_conformance as check_conformance
    from probate.testing.conformance.cases import conformance_cases as conformance_cases
    from probate.testing.conformance.description import KindDescription as KindDescription
    from probate.testing.conformance.description import NameDescription as NameDescription
    from probate.testing.conformance.fault import ConformanceError as ConformanceError
    from probate.testing.conformance.static import check_statically as check_statically
    from probate.testing.witness import KernelView as KernelView

#: The public names of each module; the block above says the same to checkers.
_HOMES: Final = by_name(
    {
        "probate.testing.conformance.cases": (
            "ConformanceCase check_conformance conformance_cases"
        ),
        "probate.testing.conformance.description": "KindDescription NameDescription",
        "probate.testing.conformance.fault": "ConformanceError",
        "probate.testing.conformance.static": "check_statically",
        "probate.testing.witness": "KernelView",
    }
)
__all__ = list(_HOMES)
if not TYPE_CHECKING:
    # Unseen by checkers, to whom a misspelt name is an error.
    __getattr__ = lazy_names(__name__, _HOMES)
