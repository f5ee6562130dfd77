"""Helpers for tests of plugins and of what uses them.

conformance/  whether a kind keeps the contract
witness.py    KernelView: what the kernel says this OS process holds
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
