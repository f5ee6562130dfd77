"""What goes wrong with inter-process communication.

ProbateError
├── QueueClosedError        the queue is closed, or takes nothing more
├── QueueTooLargeError      more than the system allows (also an OSError, a ValueError)
├── QueueFullError          no room within the time allowed (also a TimeoutError, a queue.Full)
├── QueueEmptyError         no message within the time allowed (also a TimeoutError, a queue.Empty)
├── PipeClosedError         this end of the pipe is closed (also a ValueError)
└── SemaphoreClosedError    the semaphore is closed, or was removed
"""

from __future__ import annotations

import errno
import queue
from typing import final

from probate import ProbateError
from probate_ipc import limits


@final
class QueueClosedError(ProbateError):
    """The queue is closed, or its owner is ending and it takes nothing more."""


@final
class QueueTooLargeError(ProbateError, OSError, ValueError):
    """A POSIX queue was to have more or larger messages than the system allows (EINVAL)."""

    def __init__(self, max_messages: int, max_message_size: int) -> None:
        super().__init__(
            errno.EINVAL,
            f"a POSIX queue of {max_messages} messages of {max_message_size} bytes: "
            f"{limits.too_large_a_posix_queue()}",
        )


@final
class QueueFullError(ProbateError, TimeoutError, queue.Full):
    """The queue had no room for the message within the time allowed."""


@final
class QueueEmptyError(ProbateError, TimeoutError, queue.Empty):
    """No message came within the time allowed."""


@final
class PipeClosedError(ProbateError, ValueError):
    """This end of the pipe is closed; a ValueError, as from any closed file."""


@final
class SemaphoreClosedError(ProbateError):
    """The semaphore is closed here, or its owner has removed it."""
