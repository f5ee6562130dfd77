"""Runs commands, some at a time, with progress; Ctrl-C ends them, and all that they have started.

python examples/jobs.py [-j NUMBER] COMMAND...
"""

import argparse
import signal
import sys
from collections import deque
from functools import partial
from queue import SimpleQueue

from rich.progress import MofNCompleteColumn, Progress

from probate import Process, ProcessManager


class Jobs:
    """Commands that wait, processes that run, and what became of them."""

    def __init__(self, manager: ProcessManager, commands: list[str], progress: Progress) -> None:
        self.manager, self.waiting = manager, deque(commands)
        self.ended: SimpleQueue[Process] = SimpleQueue()
        self.progress = progress
        self.bar = progress.add_task("jobs", total=len(commands))
        self.running = self.failed = 0

    def start(self) -> None:
        command = self.waiting.popleft()
        job = self.manager.spawn(["sh", "-c", command], name=command)
        job.on_terminated(partial(self.ended.put, job))
        self.running += 1

    def finish(self) -> None:
        """Wait for the job that ends first, and say how."""
        job = self.ended.get()
        self.running -= 1
        self.failed += job.returncode != 0
        verdict = f"failed ({job.returncode})" if job.returncode else "done"
        self.progress.print(f"{verdict}: {job.name}", markup=False, soft_wrap=True)
        self.progress.advance(self.bar)

    def run(self, at_once: int) -> None:
        while self.waiting or self.running:
            while self.waiting and self.running < at_once:
                self.start()
            self.finish()


def main() -> int:
    parser = argparse.ArgumentParser(description="Run commands, some at a time.")
    parser.add_argument("-j", type=int, default=2, metavar="NUMBER", help="how many at a time")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    builder = ProcessManager.builder().with_signals().with_grace(5.0)
    columns = *Progress.get_default_columns(), MofNCompleteColumn()
    try:
        with builder.build() as manager, Progress(*columns) as progress:
            jobs = Jobs(manager, options.command, progress)
            jobs.run(options.j)
            return 1 if jobs.failed else 0
    except KeyboardInterrupt:
        # Ctrl-C, and all has ended by now. Whoever ends by it as well ends a shell's loop.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
        return 130


if __name__ == "__main__":
    sys.exit(main())
