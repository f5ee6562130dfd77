"""How long each kind's cleanup takes, as pluggy's monitoring sees it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from probate.models import CleanupStats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pluggy


@final
class KindTotals(NamedTuple):
    """The cleanup calls of one kind for one pid, added up."""

    calls: int
    freed: int
    nbytes: int
    seconds: float


_NONE: Final = KindTotals(0, 0, 0, 0)


@final
class CleanupTimes:
    """Listens to every `cleanup` call; thread-safe, since each call stays on its thread."""

    def __init__(self, plugin_manager: pluggy.PluginManager) -> None:
        self._started = threading.local()
        self._totals: dict[tuple[int, str], KindTotals] = {}
        self._stop = plugin_manager.add_hookcall_monitoring(self._before, self._after)

    def of(self, pid: int, kind: str) -> KindTotals:
        """What was seen of one kind for one pid."""
        return self._totals.get((pid, kind), _NONE)

    def stop(self) -> None:
        """Listen no more."""
        self._stop()

    def _before(self, hook: str, _impls: Sequence[Any], _kwargs: Mapping[str, Any]) -> None:
        if hook == "cleanup":
            self._started.at = time.perf_counter()

    def _after(
        self,
        outcome: pluggy.Result[Any],
        hook: str,
        impls: Sequence[pluggy.HookImpl],
        kwargs: Mapping[str, Any],
    ) -> None:
        if hook != "cleanup" or outcome.exception is not None:
            return
        seconds = time.perf_counter() - self._started.at
        for impl in impls:
            answers = outcome.get_result()
            stats = CleanupStats.merged(each for each in answers if isinstance(each, CleanupStats))
            before = self.of(kwargs["pid"], impl.plugin_name)
            self._totals[kwargs["pid"], impl.plugin_name] = KindTotals(
                before.calls + 1,
                before.freed + stats.resources_freed,
                before.nbytes + stats.bytes_freed,
                before.seconds + seconds,
            )
