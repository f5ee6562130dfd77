"""The two queues of a ring, and the order in which their memory is written.

Each queue has one writer and one reader, so no counter is ever written by both ends. An entry
is written first and its counter after it; the other end reads the counter first and the entry
after it. That is correct where

- an aligned 8-byte word is read and written by one instruction: CPython copies an item of a
  memoryview of format "Q" by a memcpy of 8 bytes, which compilers turn into one move, and such
  a move is atomic (Intel SDM volume 3A, 9.1.1);
- stores are seen in the order in which they were made, and loads are made in program order:
  x86-64 does (SDM volume 3A, 9.2.2), and the interpreter makes one call for each;
- a store can be kept before a later load, which x86-64 does not do by itself, for going to
  sleep: "I sleep" is stored before the queue is looked at again, and the other end stores its
  entry before it looks for sleepers. Taking a lock is a locked instruction, and no load
  passes one (SDM volume 3A, 9.2.3.9).

Elsewhere, on machines of weaker order above all, `check_memory_order` refuses: a ring is made
and attached on x86-64 and by CPython only.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, final

from probate_rings import layout
from probate_rings.errors import RingCorruptedError, UnsupportedMachineError

if TYPE_CHECKING:
    from collections.abc import Container

    from probate_rings.layout import Geometry


def is_strongly_ordered() -> bool:
    """Whether loads and stores of this interpreter keep their order: CPython on x86-64."""
    is_cpython = sys.implementation.name == "cpython"
    return is_cpython and os.uname().machine == "x86_64" and sys.maxsize >= 1 << 32


def check_memory_order() -> None:
    """Raise UnsupportedMachineError where memory is not ordered as the queues need it."""
    if not is_strongly_ordered():
        machine, interpreter = os.uname().machine, sys.implementation.name
        raise UnsupportedMachineError(
            f"zero-copy rings need the memory order of x86-64 and 64-bit CPython, and this is "
            f"{interpreter} on {machine}: use a pipe or a socket"
        )


@final
class Queues:
    """Submission and completion queue, seen from one end.

    `words` is the memory up to the pool, as format "Q". What the other end writes is checked
    before it is used, and own counters are kept here: memory is never trusted with them.
    Not thread-safe.
    """

    __slots__ = (
        "_completed",
        "_completions",
        "_fence",
        "_geometry",
        "_received",
        "_reused",
        "_submissions",
        "_submitted",
        "_words",
    )

    def __init__(self, words: memoryview, geometry: Geometry) -> None:
        self._words = words
        self._geometry = geometry
        self._submissions = geometry.submissions // layout.WORD
        self._completions = geometry.completions // layout.WORD
        self._fence = threading.Lock()
        # Each queue end is used by one end of the ring, from its first entry on.
        self._submitted = self._received = self._reused = 0
        self._completed = geometry.slots

    def format(self) -> None:
        """Write the constants, and put all blocks where the sender finds them."""
        for block in range(self._geometry.slots):
            self._words[self._completions + block] = block
        self._words[layout.COMPLETED] = self._geometry.slots
        self._geometry.write(self._words)

    # -- the sender's side ---------------------------------------------------

    def has_free(self) -> bool:
        """Whether a block has come back."""
        return bool(self._words[layout.COMPLETED] != self._reused)

    def take_free(self, in_use: Container[int]) -> int | None:
        """Take a free block; None if there is none. Raises RingCorruptedError."""
        slots = self._geometry.slots
        count = self._words[layout.COMPLETED] - self._reused
        if not count:
            return None
        block: int = self._words[self._completions + self._reused % slots]
        if not 0 <= count <= slots or block >= slots or block in in_use:
            raise RingCorruptedError(
                f"the receiver gives back block {block} of {slots}, entry {count} of the "
                "completion queue, which cannot be; close this ring"
            )
        self._reused += 1
        self._words[layout.REUSED] = self._reused
        return block

    def put_message(self, block: int, length: int) -> bool:
        """Submit a block of `length` bytes; True if the receiver sleeps and is to be woken."""
        entry = self._submissions + self._submitted % self._geometry.slots * 2
        self._words[entry] = block
        self._words[entry + 1] = length
        self._submitted += 1
        # Only now: whoever sees the counter must see the entry, and the block.
        self._words[layout.SUBMITTED] = self._submitted
        return self._is_set(layout.RECEIVER_WAITS)

    # -- the receiver's side -------------------------------------------------

    def has_message(self) -> bool:
        """Whether a message waits."""
        return bool(self._words[layout.SUBMITTED] != self._received)

    def take_message(self, in_use: Container[int]) -> tuple[int, int] | None:
        """Take the next message, its block and length; None if there is none.

        Raises RingCorruptedError.
        """
        slots = self._geometry.slots
        count = self._words[layout.SUBMITTED] - self._received
        if not count:
            return None
        entry = self._submissions + self._received % slots * 2
        block: int = self._words[entry]
        length: int = self._words[entry + 1]
        if (
            not 0 <= count <= slots
            or block >= slots
            or length > self._geometry.block_size
            or block in in_use
        ):
            raise RingCorruptedError(
                f"the sender submits {length} bytes in block {block} of {slots}, entry {count} "
                "of the submission queue, which cannot be; close this ring"
            )
        self._received += 1
        self._words[layout.RECEIVED] = self._received
        return block, length

    def put_free(self, block: int) -> bool:
        """Give a block back; True if the sender sleeps and is to be woken."""
        self._words[self._completions + self._completed % self._geometry.slots] = block
        self._completed += 1
        self._words[layout.COMPLETED] = self._completed
        return self._is_set(layout.SENDER_WAITS)

    # -- sleeping ------------------------------------------------------------

    def set_flag(self, flag: int, value: bool) -> None:
        """Say that this end sleeps, or no longer does; queues are to be looked at after it."""
        self._words[flag] = value
        self._order()

    def _is_set(self, flag: int) -> bool:
        self._order()
        return bool(self._words[flag])

    def _order(self) -> None:
        """Have all stores up to here seen before anything is loaded from here on."""
        with self._fence:
            pass
