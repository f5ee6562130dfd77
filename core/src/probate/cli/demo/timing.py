"""How long each kind's cleanup takes, as pluggy's monitoring sees it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, final

from probate.cli.demo.report import KindReport
from probate.models import CleanupStats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pluggy


@final
class CleanupTimes:
    """Listens to every `cleanup` call; thread-safe, since each call stays on its thread."""

    def __init__(self, plugin_manager: pluggy.PluginManager) -> None:
        self._started = threading.local()
        self._calls: defaultdict[tuple[int, str], list[tuple[float, CleanupStats]]]
        self._calls = defaultdict(list)
        #: Listen no more.
        self.stop = plugin_manager.add_hookcall_monitoring(self._before, self._after)

    def report(self, pid: int, kind: str, held: int) -> KindReport:
        """Add up what was seen of one kind for one pid, which held so many."""
        calls = self._calls[pid, kind]
        return KindReport(
            held=held,
            freed=sum(stats.resources_freed for _, stats in calls),
            nbytes=sum(stats.bytes_freed for _, stats in calls),
            seconds=sum(seconds for seconds, _ in calls),
            calls=len(calls),
        )

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
        answers = [each for each in outcome.get_result() if isinstance(each, CleanupStats)]
        for impl in impls:
            call = (seconds, CleanupStats.merged(answers))
            self._calls[kwargs["pid"], impl.plugin_name].append(call)
