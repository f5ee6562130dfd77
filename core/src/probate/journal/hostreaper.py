"""HostReaper: the one reaper of this OS process, lent to all that need one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, final

from probate.journal.arming import Reaper
from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class ReaperLoan:
    """Lets somebody have the reaper, until it is given back or has died."""

    __slots__ = ("_lender", "is_over", "on_death", "reaper")

    def __init__(
        self, lender: HostReaper, reaper: Reaper, on_death: Callable[[ReaperLoan], object]
    ) -> None:
        self._lender = lender
        self.reaper = reaper
        self.on_death = on_death
        #: Whether the reaper has died.
        self.is_over = False

    def give_back(self) -> None:
        """Need it no more; with the last loan it ends, and this waits until it is gone."""
        self._lender.take_back(self)


@final
class HostReaper:
    """Lends the one reaper of this OS process, which ends with the last loan. Thread-safe.

    A forked child has none: the reaper is its parent's.
    """

    def __init__(self) -> None:
        # Reentrant, as all locks here: a signal handler may need a reaper.
        self._lock = threading.RLock()
        self._reaper: Reaper | None = None
        self._loans: set[ReaperLoan] = set()
        self._inherited: list[Reaper] = []
        forget_in_forked_child(self)

    def lend(self, on_death: Callable[[ReaperLoan], object]) -> ReaperLoan:
        """Lend the reaper, started if it is not there. Raises OSError.

        Should it die, all loans are over: each one's `on_death` is called with it, on the thread
        of the death watch, and whoever needs another reaper asks again.
        """
        with self._lock:
            loan = ReaperLoan(self, self._reaper or self._start(), on_death)
            self._loans.add(loan)
        return loan

    def take_back(self, loan: ReaperLoan) -> None:
        """End a loan; with the last, end the reaper."""
        with self._lock:
            if loan not in self._loans:
                return
            self._loans.discard(loan)
            if self._loans:
                return
            self._reaper = None
        loan.reaper.close()

    def forget_parent(self) -> None:
        """Have none, in a forked child."""
        if self._reaper is not None:
            # The reaper would take this child for its host, were this end left open.
            self._reaper.disown()
            self._inherited.append(self._reaper)
        self._lock = threading.RLock()
        self._reaper, self._loans = None, set()

    def _start(self) -> Reaper:
        reaper = Reaper.start()
        try:
            reaper.watch(self._died)
            if self._reaper is None:
                self._reaper = reaper
        except BaseException:
            reaper.close()
            raise
        if self._reaper is not reaper:
            # A signal handler has come in between, and needed one.
            reaper.close()
        return self._reaper

    def _died(self, reaper: Reaper) -> None:
        with self._lock:
            if self._reaper is not reaper:
                return
            self._reaper = None
            loans, self._loans = self._loans, set()
            for loan in loans:
                loan.is_over = True
        reaper.close()
        for loan in loans:
            loan.on_death(loan)


#: That of this OS process. It is started when somebody first needs it.
host_reaper: Final = HostReaper()
