"""Messages in an in-process queue, and the memory that they lie in.

Bytes are copied into memory of the queue's own, so that the sender may reuse its buffer, or die.
They lie there until they are received or dropped, and are overwritten with zeros then, so that
nobody who gets that memory next can read them. Any other object is held by reference: it is the
sender's object still, and sender and receiver share it.
"""

from __future__ import annotations

from typing import final


@final
class Message:
    """One message. Ordered by priority, then by arrival."""

    __slots__ = ("body", "is_block", "nbytes", "order")

    def __init__(self, item: object, priority: int = 0) -> None:
        self.body: object = item
        self.is_block = isinstance(item, (bytes, bytearray, memoryview))
        #: Bytes of the queue's memory.
        self.nbytes = 0
        self.order = (priority, 0)
        if isinstance(item, (bytes, bytearray, memoryview)):
            self.body = bytearray(item)
            self.nbytes = len(self.body)

    def __lt__(self, other: Message) -> bool:
        return self.order < other.order

    def take(self) -> object:
        """Hand the message over, bytes as `bytes`; nothing is left of it here."""
        body = bytes(self.body) if isinstance(self.body, bytearray) and self.is_block else self.body
        self.clear()
        return body

    def clear(self) -> None:
        """Overwrite the bytes with zeros; let go of any other object."""
        if self.is_block and isinstance(self.body, bytearray):
            self.body[:] = bytes(len(self.body))
        self.body = None
