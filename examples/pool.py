"""A pool of workers: whoever dies is replaced, once all that it had started and left is gone.

python examples/pool.py SIZE COMMAND [ARGUMENT]...
"""

import signal
import sys
import time
from collections import deque
from functools import partial
from queue import SimpleQueue

from probate import Process, ProcessManager
from probate.process import ManagerClosedError

RESTARTS = 5
SECONDS = 10.0


class Pool:
    """Keeps so many workers running, unless they die too fast to be of any use."""

    def __init__(self, manager: ProcessManager, argv: list[str], size: int) -> None:
        self.manager, self.argv = manager, argv
        self.ended: SimpleQueue[Process] = SimpleQueue()
        self.restarts: deque[float] = deque(maxlen=RESTARTS)
        for number in range(size):
            self.start(f"worker-{number}")

    def start(self, name: str) -> None:
        worker = self.manager.spawn(self.argv, name=name)
        print(f"{name} runs as {worker.os_pid}", flush=True)
        worker.on_terminated(partial(self.ended.put, worker))

    def replace_next(self) -> None:
        """Wait for whoever ends first, and start another in its place."""
        worker = self.ended.get()
        print(f"{worker.name} ended with {worker.returncode}; {worker.result}", flush=True)
        self.restarts.append(time.monotonic())
        if len(self.restarts) == RESTARTS and self.restarts[-1] - self.restarts[0] < SECONDS:
            sys.exit(f"{RESTARTS} workers have died within {SECONDS:g} s: giving up")
        self.start(worker.name)


def main() -> None:
    size, *argv = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    with ProcessManager.builder().with_signals().with_grace(2.0).build() as manager:
        try:
            pool = Pool(manager, argv, int(size))
            while True:
                pool.replace_next()
        except ManagerClosedError:
            print("told to stop", flush=True)


if __name__ == "__main__":
    main()
