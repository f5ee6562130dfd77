"""Private memory: an anonymous map that a process is charged for."""

from __future__ import annotations

import mmap
import threading
from typing import final

from probate import Outcome
from probate_memory.referrers import has_other_referrers, still_in_use
from probate_memory.wiping import zeros_over


@final
class Allocation:
    """`nbytes` bytes of zeros, seen through the memoryview `native`.

    Fresh from the kernel, which clears pages before it hands them out (mmap(2), MAP_ANONYMOUS),
    and given back to it: there is no pool that a dead owner's bytes could be read from. Raises
    OSError (ENOMEM).
    """

    __slots__ = ("_lock", "_map", "_wipe", "native", "nbytes")

    #: It has no descriptors.
    descriptors = ()

    def __init__(self, nbytes: int, *, wipe: bool) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._map = mmap.mmap(-1, nbytes, flags=flags)
        self._wipe = wipe
        # Reentrant: a signal handler may terminate the owner while its thread frees this.
        self._lock = threading.RLock()
        self.native = memoryview(self._map)
        self.nbytes = nbytes

    def __str__(self) -> str:
        return f"allocation of {self.nbytes} bytes"

    def close(self) -> Outcome:
        """Give it back; its view, and whatever was made of it, is of no use from then on.

        Raises BusyResourceError while a buffer of it is exported, or an array lies on it. Its
        own view may be released by then, and its bytes be wiped if they were to be.
        """
        with self._lock:
            if self._map.closed:
                return Outcome.ALREADY_GONE
            try:
                self.native.release()
                self._clear()
                if has_other_referrers(self, "_map"):
                    raise still_in_use()
                self._map.close()
            except BufferError as error:
                raise still_in_use() from error
            return Outcome.RELEASED

    def release(self) -> Outcome:
        """Give it back by force: as `close`, but wiped at once, whatever looks on."""
        with self._lock:
            self._clear()
            return self.close()

    def _clear(self) -> None:
        if not self._wipe or self._map.closed:
            return
        for offset, zeros in zeros_over(0, self.nbytes):
            self._map[offset : offset + len(zeros)] = zeros
        self._wipe = False
