"""What goes wrong with rings.

ProbateError
├── RingClosedError           this end, or the other, is closed for good
├── RingCorruptedError        the other end wrote nonsense into the shared memory
├── RingFormatError           the descriptors are no ring's (also a ValueError)
├── RingFullError             too much is in flight (also a BlockingIOError)
├── UnsupportedMachineError   memory is ordered too loosely here (also a RuntimeError)
└── IoUringUnavailableError   the kernel has or allows no io_uring here (also a RuntimeError)
"""

from __future__ import annotations

import errno
from typing import final

from probate import ProbateError


@final
class RingClosedError(ProbateError):
    """Nothing more goes through this ring."""


@final
class RingCorruptedError(ProbateError):
    """The other end broke the protocol; what it wrote was not followed. Close the ring."""


@final
class RingFormatError(ProbateError, ValueError):
    """These descriptors do not make a ring that can be trusted."""


@final
class RingFullError(ProbateError, BlockingIOError):
    """As many operations as the completion queue has room for are in flight: reap some."""

    def __init__(self, what: str, capacity: int) -> None:
        super().__init__(errno.EAGAIN, f"{what}: {capacity} operations are in flight: reap some")


@final
class UnsupportedMachineError(ProbateError, RuntimeError):
    """This machine or interpreter does not order memory as zero-copy rings need it."""


@final
class IoUringUnavailableError(ProbateError, RuntimeError):
    """io_uring cannot be used here; zero-copy rings can."""

    def __init__(self, problem: str, way_out: str) -> None:
        super().__init__(
            f"io_uring is not available: {problem}; {way_out} (zero-copy rings work without it)"
        )
