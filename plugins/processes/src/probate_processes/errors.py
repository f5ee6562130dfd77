"""What goes wrong with OS processes, and nowhere else."""

from __future__ import annotations

from typing import final

from probate.errors import ProbateError


@final
class ForeignProcError(ProbateError):
    """Raised when /proc shows another pid namespace: nobody in it is who its number says."""

    def __init__(self) -> None:
        super().__init__(
            "/proc is that of another pid namespace, so that no OS process can be told by it: "
            "mount this one's (mount -t proc proc /proc; unshare --mount-proc)"
        )
