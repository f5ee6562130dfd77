"""Where everything lies in a ring's shared memory.

    page 0    header: constants, then one cache line for each word that changes
    page 1    submission queue: `slots` entries of two words, block and length
              completion queue: `slots` entries of one word, block
    next page the pool: `slots` blocks, each beginning on a cache line of its own

All words are unsigned, of 8 bytes, in the machine's byte order. The four counters only grow;
an entry's place is its counter modulo `slots`. At 2**64 they would wrap, which at a billion
messages a second takes 584 years.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Self, final

from probate.system import checked_int
from probate_rings.errors import RingFormatError

WORD: Final = 8
_CACHE_LINE: Final = 64

#: "probring" and the version of this layout.
MAGIC: Final = int.from_bytes(b"probring", "little")
VERSION: Final = 1

#: Bytes before the submission queue; the size of a page on all that `check_memory_order` lets in.
HEADER_SIZE: Final = 4096

# Constants, by word.
_MAGIC, _VERSION, _SLOTS, _BLOCK_SIZE, _SIZE = range(5)

# Words that change, by word; who writes is said of each.
SUBMITTED: Final = 8  #: entries ever put into the submission queue; the sender
RECEIVED: Final = 16  #: entries ever taken out of it; the receiver
COMPLETED: Final = 24  #: entries ever put into the completion queue; the receiver
REUSED: Final = 32  #: entries ever taken out of it; the sender
RECEIVER_WAITS: Final = 40  #: whether the receiver sleeps; the receiver
SENDER_WAITS: Final = 48  #: whether the sender sleeps; the sender
SENDER: Final = 56  #: which end sends; that end
RECEIVER: Final = 64  #: which end receives; that end
OWNER: Final = 72  #: state of the owner's end, then its OS process, three words; that end
PEER: Final = 80  #: the same for the peer's

# States of an end.
ABSENT, OPEN, CLOSED = range(3)

MAX_SLOTS: Final = 1 << 16
MAX_BLOCK_SIZE: Final = 1 << 30


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


@final
class Geometry(NamedTuple):
    """The size of a ring, and what follows from it. All offsets are in bytes."""

    slots: int
    #: Bytes that a message has at most.
    block_size: int

    @classmethod
    def checked(cls, slots: object, block_size: object) -> Self:
        """Check what a caller asked for. Raises TypeError or ValueError."""
        return cls(
            checked_int("slots", slots, least=1, most=MAX_SLOTS),
            checked_int("block_size", block_size, least=1, most=MAX_BLOCK_SIZE),
        )

    @classmethod
    def read(cls, header: memoryview, size: int) -> Self:
        """Read what the maker of `size` bytes of memory wrote. Trusts nothing in it.

        `header` is the first page as words. Raises RingFormatError.
        """
        magic, version, slots, block_size, told_size = header[:5].tolist()
        if magic != MAGIC:
            raise RingFormatError(f"no ring: it begins with {magic:#x}, not {MAGIC:#x}")
        if version != VERSION:
            raise RingFormatError(f"a ring of version {version}; this is version {VERSION}")
        try:
            geometry = cls.checked(slots, block_size)
        except ValueError as error:
            raise RingFormatError(f"a ring of impossible size: {error}") from None
        if not size == told_size == geometry.size:
            raise RingFormatError(
                f"a ring of {slots} blocks of {block_size} bytes has {geometry.size} bytes; "
                f"its header says {told_size}, the kernel {size}"
            )
        return geometry

    def write(self, header: memoryview) -> None:
        """Write the constants."""
        header[_VERSION] = VERSION
        header[_SLOTS] = self.slots
        header[_BLOCK_SIZE] = self.block_size
        header[_SIZE] = self.size
        header[_MAGIC] = MAGIC

    @property
    def submissions(self) -> int:
        """Where the submission queue begins."""
        return HEADER_SIZE

    @property
    def completions(self) -> int:
        """Where the completion queue begins."""
        return self.submissions + self.slots * 2 * WORD

    @property
    def pool(self) -> int:
        """Where the first block begins."""
        return _up(self.completions + self.slots * WORD, HEADER_SIZE)

    @property
    def stride(self) -> int:
        """From the beginning of one block to that of the next."""
        return _up(self.block_size, _CACHE_LINE)

    @property
    def size(self) -> int:
        """Of the whole memory."""
        return _up(self.pool + self.slots * self.stride, HEADER_SIZE)
