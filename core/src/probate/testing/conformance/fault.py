"""ConformanceError: a kind does not keep the contract."""

from __future__ import annotations

from typing import final


@final
class ConformanceError(AssertionError):
    """Raised when a kind fails a check of the conformance kit; the message names the fault.

    `faults` has one line for each.
    """

    def __init__(self, kind: str, faults: list[str]) -> None:
        lines = faults[0] if len(faults) == 1 else "".join(f"\n- {fault}" for fault in faults)
        super().__init__(f"kind {kind!r}: {lines}")
        self.kind = kind
        self.faults = faults
