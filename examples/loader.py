"""A data loader: OS processes fill batches in shared memory, and nothing is copied, or left.

python examples/loader.py [BATCHES]
"""

import contextlib
import math
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from probate import Process, ProcessManager
from probate_memory import MemoryResource
from probate_memory import UntrackedSharedMemory as Slot

SHAPE = (64, 28, 28)


def fill(slot: Slot, host: Connection, numbers: range) -> None:
    """Fill a slot with batch after batch, in a worker: here noise, elsewhere from files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's to handle
    batch = np.ndarray(SHAPE, np.float32, slot.buf)
    with contextlib.suppress(EOFError, ConnectionError):
        for number in numbers:
            np.random.default_rng(number).standard_normal(dtype=np.float32, out=batch)
            host.send(number)
            host.recv()  # until the batch has been used


def start(owner: Process, slot: Slot, numbers: range) -> Connection:
    """Start a worker, which is `owner`'s; so is our end of the pipe to it, by which it ends."""
    spawn = multiprocessing.get_context("spawn")
    pipe, theirs = spawn.Pipe()
    with theirs:
        owner.adopt(pipe)  # first, since that is refused when the owner ends
        worker = spawn.Process(target=fill, args=(slot, theirs, numbers))
        worker.start()
        owner.adopt(worker)
    return pipe


def batches(owner: Process, slots: Sequence[Slot], count: int) -> Iterator[NDArray[np.float32]]:
    """Yield batches in order; each is good until the next one is asked for."""
    step = len(slots)
    pipes = [start(owner, slot, range(k, count, step)) for k, slot in enumerate(slots)]
    for number in range(count):
        k = number % step
        while True:
            try:
                pipes[k].recv()
                break
            except (EOFError, ConnectionError):
                owner.give_back(pipes[k])
                pipes[k] = start(owner, slots[k], range(number, count, step))
                print("a worker had died: here is another", flush=True)
        yield np.ndarray(SHAPE, np.float32, slots[k].buf)
        with contextlib.suppress(ConnectionError):
            pipes[k].send(None)


def main(count: int, workers: int = 3) -> None:
    with ProcessManager.builder().with_signals().build() as manager:
        memory = manager.orchestrator[MemoryResource].manager
        loader, nbytes = manager.create_process("loader"), 4 * math.prod(SHAPE)
        slots = [memory.create_shared_memory(loader, size=nbytes) for _ in range(workers)]
        for number, batch in enumerate(batches(loader, slots, count)):
            print(f"batch {number}: {batch.mean():+.4f}", flush=True)
            del batch  # as long as somebody has it, its slot stays mapped
        print(loader.terminate())


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 6)
