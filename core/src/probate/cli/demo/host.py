"""The demo's host program: a manager, an event loop in a thread of its own, a folder."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final

from probate import ProcessManager, SchedulingPolicy
from probate.cli.demo.report import EndedProcess
from probate.cli.demo.timing import CleanupTimes
from probate.cli.lack import Lack, with_mend
from probate.system import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from probate import Process, ResourceOrchestrator

T = TypeVar("T")

#: Seconds that users of resources get to stop: three times what the slow task takes.
GRACE: Final = 0.6


@final
class DemoError(Exception):
    """The demo cannot go on, for the reason that the message says; `where` is for developers."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where


@final
class Host:
    """What the scenes work with. A context manager; leaving it ends the loop's thread."""

    def __init__(self, orchestrator: ResourceOrchestrator, tell: Callable[[str], None]) -> None:
        self.orchestrator = orchestrator
        #: Shows how far the demo is.
        self.tell = tell
        #: What each file must contain in the end.
        self.expected_files: dict[Path, bytes] = {}
        #: What the kernel shows of the dead, a line each.
        self.differences: list[str] = []
        #: Whether all could be shown of what this system has.
        self.is_complete = True
        self._lacks: dict[tuple[str, str], tuple[list[str], str]] = {}
        self._held: dict[int, tuple[dict[str, list[str]], dict[str, int]]] = {}
        with contextlib.ExitStack() as close:
            folder = _new_folder()
            close.callback(folder.cleanup)
            self.folder = Path(folder.name)
            self.loop = asyncio.new_event_loop()
            close.callback(self.loop.close)
            self._thread = threading.Thread(target=self.loop.run_forever, name="demo-loop")
            close.callback(self._stop_loop)
            self._times = CleanupTimes(orchestrator.plugin_manager)
            close.callback(self._times.stop)
            builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
            if self.has("scheduler"):
                builder.with_scheduler(SchedulingPolicy.ROUND_ROBIN, quantum=0.01)
            self.manager = builder.with_grace(GRACE).with_acquisition_sites().build()
            close.callback(self.manager.close)
            self._close = close.pop_all()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as close:
            close.push(self._close)
            start_thread(self._thread)
            close.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close.close()

    def _stop_loop(self) -> None:
        if self._thread.ident is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    def on_loop(self, function: Callable[[], T]) -> T:
        """Call `function` on the loop's thread and return what it returns."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def has(self, *kinds: str) -> bool:
        """Whether all these kinds are installed."""
        return all(kind in self.orchestrator for kind in kinds)

    def has_any(self, *kinds: str) -> bool:
        """Whether any of these kinds is installed."""
        return any(kind in self.orchestrator for kind in kinds)

    def plugin(self, kind: str) -> Any:
        """The plugin that serves a kind; the demo imports none."""
        return self.orchestrator[kind]

    def note_lack(self, name: str, kind: str, lack: Lack) -> None:
        """Note what could not be shown for a process, for want of what."""
        self.is_complete &= not lack.is_shortage
        names, _ = self._lacks.setdefault((kind, lack.what), ([], lack.text))
        if name not in names:
            names.append(name)

    def remarks(self) -> list[str]:
        """What could not be shown, for whom, and why: a line for each lack of a kind."""
        return [
            f"not here: {kind} ({', '.join(names)}): {text}"
            for (kind, _), (names, text) in self._lacks.items()
        ]

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


def _new_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="probate-demo-")
    except OSError as error:
        text = with_mend(error, "set TMPDIR to a folder that you may write to")
        raise DemoError(f"no folder can be made for its files: {text}") from error
