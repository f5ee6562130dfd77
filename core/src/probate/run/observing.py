"""Observation: what a host has of one program that it spawns, and that is looked on."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from probate.journal.store import above_standard_streams
from probate.run.account import bounded
from probate.run.filter import ObservationUnavailableError, native
from probate.run.keeper import Keeper, KeeperNotStartedError
from probate.run.options import RunOptions
from probate.system.deathwatch import death_watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from probate.process.argv import Argument
    from probate.run.account import RunAccount

#: How much of a command line the journal has.
_MOST_ARGUMENTS: Final = 16
_MOST_CHARACTERS: Final = 64

#: How many things of each sort are named; of more, it is said how many they are.
_NAMED: Final = 10

#: What a reason to leave a thing ends with, that is for who runs commands.
_WAY_OUT: Final = ": --settle all removes it"


@final
class Observation:
    """Looks on as a spawned program, and all that it starts, make things by name.

    For one program: `begin` before it is started, `look_on` in the forked child, `started`, and in
    the end `settle`, or `close` if it was not started.
    """

    def __init__(self, argv: Sequence[Argument]) -> None:
        words = [os.fsdecode(each)[:_MOST_CHARACTERS] for each in argv[:_MOST_ARGUMENTS]]
        # It was asked to stop before, by whoever ends its tree.
        self._options: Final = RunOptions(tuple(words), grace=0)
        self._lock = threading.Lock()
        self._keeper: Keeper | None = None
        #: By which the child says why nobody may look on.
        self._failure = (-1, -1)
        #: The keeper's pidfd that is watched.
        self._watched = -1

    def begin(self, tag: int) -> None:
        """Have a keeper ready for a program that will bear this tag.

        Raises ObservationUnavailableError.
        """
        native()
        try:
            # In the child, the standard streams take the place of what has their numbers.
            with above_standard_streams():
                self._keeper = Keeper.start_apart(self._options, tag)
                self._failure = os.pipe()
        except (KeeperNotStartedError, OSError) as error:
            self.close()
            raise ObservationUnavailableError(
                f"nobody can look on as it makes things by name: {error}; it can be started "
                "without observe=True"
            ) from error

    @property
    def environment(self) -> dict[str, str]:
        """What the program is to have in its environment."""
        return {} if self._keeper is None else self._keeper.environment

    def look_on(self) -> None:
        """Put this process, a forked child that is about to be the program, under the filter.

        Raises ObservationUnavailableError.
        """
        if self._keeper is not None:
            try:
                self._keeper.look_on()
            except ObservationUnavailableError as error:
                os.write(self._failure[1], str(error).encode())
                raise

    def check(self, error: Exception) -> None:
        """Raise ObservationUnavailableError if it was for that that a program was not started."""
        os.set_blocking(self._failure[0], False)
        with suppress(BlockingIOError):
            if text := os.read(self._failure[0], 1 << 12).decode():
                raise ObservationUnavailableError(
                    f"{text}; it can be started without observe=True"
                ) from error

    def started(self, os_pid: int, pidfd: int) -> None:
        """Tell the keeper that the program runs, as this OS process."""
        if self._keeper is not None:
            # They may be closed here.
            with above_standard_streams():
                self._keeper.started(os_pid, pidfd)
            self._watch(self._keeper)

    def settle(self, returncode: int | None) -> list[str]:
        """Give back what the program has left; say what became of it, for an account.

        `returncode` is how it has ended, as subprocess puts it; None if nobody knows. Once; nothing
        is said after that.
        """
        with self._lock:
            if (keeper := self._keeper) is None:
                return []
            self._unwatch()
            # To hear of it takes a descriptor, of which there may be no more.
            self._close_failure()
            try:
                return list(_said_of(keeper.ended(_status_of(returncode))))
            finally:
                self._let_go()

    def close(self) -> None:
        """Have nobody look on any more: the program was not started."""
        self.settle(0)

    # -- inside --------------------------------------------------------------

    def _let_go(self) -> None:
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        self._close_failure()

    def _close_failure(self) -> None:
        for fd in self._failure:
            if fd >= 0:
                os.close(fd)
        self._failure = (-1, -1)

    def _watch(self, keeper: Keeper) -> None:
        self._watched = keeper.pidfd
        # Whoever waits for its answer waits for another one. It takes longer to start than the
        # thread of the watch has.
        death_watch.watch(
            self._watched,
            lambda: threading.Thread(target=self._revive, name="probate-keeper").start(),
        )

    def _unwatch(self) -> None:
        if self._watched >= 0:
            death_watch.forget(self._watched)
            self._watched = -1

    def _revive(self) -> None:
        with self._lock:
            keeper = self._keeper
            if keeper is not None and self._watched >= 0:
                self._unwatch()
                if keeper.revive():
                    self._watch(keeper)


def _status_of(returncode: int | None) -> int:
    """Return a status as waitpid(2) has it: where nobody knows, what may be data is left."""
    if returncode is None:
        return 0
    return -returncode if returncode < 0 else returncode << 8


def _said_of(account: RunAccount) -> Iterator[str]:
    gone = [each.description for each in account.settled if not each.is_kept]
    if gone:
        yield f"gave back what it had left by name: {_listed(gone)}"
    for each in [each for each in account.settled if each.is_kept][:_NAMED]:
        yield bounded(f"left {each.description}: {each.text.removesuffix(_WAY_OUT)}")
    if (count := sum(each.is_kept for each in account.settled)) > _NAMED:
        yield f"left {count - _NAMED} more things that it had made by name"
    yield from account.notes


def _listed(descriptions: Sequence[str]) -> str:
    named = ", ".join(map(bounded, descriptions[:_NAMED]))
    more = len(descriptions) - _NAMED
    return f"{named} and {more} more" if more > 0 else named
