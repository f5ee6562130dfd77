"""Many threads at once, started together and all waited for."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def at_once(functions: Sequence[Callable[[], object]], *, timeout: float = 20) -> list[object]:
    """Call all functions at the same moment, a thread each; what each returned or raised."""
    barrier = threading.Barrier(len(functions))
    outcomes: list[object] = [None] * len(functions)

    def call(index: int) -> None:
        barrier.wait()
        try:
            outcomes[index] = functions[index]()
        except BaseException as error:
            outcomes[index] = error

    # Daemons, so that a deadlock fails the test instead of keeping pytest from ending.
    threads = [
        threading.Thread(target=call, args=(index,), daemon=True) for index in range(len(functions))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)

    assert not any(thread.is_alive() for thread in threads), "deadlock"

    return outcomes


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Have the interpreter switch threads as often as it can, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
