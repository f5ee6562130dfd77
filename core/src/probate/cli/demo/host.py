"""The demo's host program: a manager, an event loop in a thread of its own, a folder."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final

from probate import ProcessManager, SchedulingPolicy
from probate.cli.demo.report import EndedProcess
from probate.cli.demo.timing import CleanupTimes

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from probate import Process, ResourceOrchestrator

T = TypeVar("T")

#: Seconds that users of resources get to stop: three times what the slow task takes.
GRACE: Final = 0.6


@final
class DemoError(Exception):
    """The demo cannot go on, for the reason that the message says."""


@final
class Host:
    """What the scenes work with. A context manager; leaving it ends the loop's thread."""

    def __init__(self, orchestrator: ResourceOrchestrator, tell: Callable[[str], None]) -> None:
        self.orchestrator = orchestrator
        #: Shows how far the demo is.
        self.tell = tell
        self.loop = asyncio.new_event_loop()
        # A daemon: a Ctrl-C while it starts leaves it to nobody, and nobody is to wait for it.
        self._thread = threading.Thread(target=self.loop.run_forever, name="demo-loop", daemon=True)
        self._folder = tempfile.TemporaryDirectory(prefix="probate-demo-")
        self.folder = Path(self._folder.name)
        builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
        if self.has("scheduler"):
            builder.with_scheduler(SchedulingPolicy.ROUND_ROBIN, quantum=0.01)
        self.manager = builder.with_grace(GRACE).with_acquisition_sites().build()
        #: What each file must contain in the end.
        self.expected_files: dict[Path, bytes] = {}
        #: What could not be shown, and why.
        self.remarks: list[str] = []
        #: What the kernel shows of the dead, a line each.
        self.differences: list[str] = []
        self._held: dict[int, tuple[dict[str, list[str]], dict[str, int]]] = {}
        self._times = CleanupTimes(orchestrator.plugin_manager)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.manager.close()
        finally:
            self._times.stop()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()
            self._folder.cleanup()

    def on_loop(self, function: Callable[[], T]) -> T:
        """Call `function` on the loop's thread and return what it returns."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def has(self, *kinds: str) -> bool:
        """Whether all these kinds are installed."""
        return all(kind in self.orchestrator for kind in kinds)

    def plugin(self, kind: str) -> Any:
        """The plugin that serves a kind; the demo imports none."""
        return self.orchestrator[kind]

    def note_held(self, process: Process, scenes: dict[str, list[str]]) -> None:
        """Note what a process does with each kind, and how much it owns, before its end."""
        counts = {kind: usage.count for kind, usage in process.usage().items()}
        self._held[process.pid] = scenes, counts

    def report(self, process: Process, ended_by: str, end: str) -> EndedProcess:
        """Report of a process that has come to its end."""
        scenes, held = self._held[process.pid]
        return EndedProcess(
            pid=process.pid,
            name=process.name,
            ended_by=ended_by,
            end=end,
            returncode=process.returncode,
            scenes=scenes,
            kinds={
                kind: self._times.report(process.pid, kind, held.get(kind, 0))
                for kind in self.orchestrator
            },
            result=process.terminate(),
        )

    def wrong_files(self) -> list[str]:
        """What is wrong in the folder, a line each: content that is not as written, paths left."""
        wrong = [
            f"not as written: {path}"
            for path, content in self.expected_files.items()
            if path.read_bytes() != content
        ]
        left = [path for path in self.folder.iterdir() if path not in self.expected_files]
        return wrong + [f"path left behind: {path}" for path in left]
