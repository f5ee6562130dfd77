"""What a process knows of the OS process behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import concurrent.futures
    from typing import IO


class OsChild(Protocol):
    """A spawned OS process, as the kind `processes` gives it out."""

    @property
    def os_pid(self) -> int:
        """Its pid; its own until it has been settled."""

    @property
    def returncode(self) -> int | None:
        """How it ended, as subprocess puts it; None while it runs, or if nobody can tell."""

    @property
    def exited(self) -> concurrent.futures.Future[int | None]:
        """Done, with the return code, when it has exited."""

    @property
    def stdin(self) -> IO[bytes] | None:
        """Our end of a pipe to it, with stdin=PIPE."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """Our end of a pipe from it, with stdout=PIPE."""

    @property
    def stderr(self) -> IO[bytes] | None:
        """Our end of a pipe from it, with stderr=PIPE."""

    def send_signal(self, number: int) -> bool:
        """Send it a signal; False if it is gone."""
