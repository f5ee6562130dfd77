"""One end of a zero-copy ring: messages are written and read where they lie."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self, final

from probate import BusyResourceError, Outcome
from probate.system import checked_int, forget_in_forked_child
from probate_rings import layout
from probate_rings.blocks import Blocks, Pool
from probate_rings.errors import RingClosedError
from probate_rings.interruptible import InterruptibleWait
from probate_rings.peer import Presence
from probate_rings.queues import Queues

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator, Sequence

    from probate.system import OwnedDescriptor
    from probate_rings.layout import Geometry

#: Seconds that woken sleepers get to leave; they need nobody's help.
_PATIENCE: Final = 1.0


@final
class ZeroCopyRing:
    """One of the two ends of a ring, the owner's or its one peer's.

    A ring carries messages one way. Whichever end reserves first is the sender, whichever
    receives first the receiver; one end alone may be both. At each end one thread at a time
    sends and one receives; others queue up behind it. Made by `ZeroCopyIpc` only.

    `timeout` is in seconds everywhere: 0 does not wait, None waits for as long as it takes.
    """

    def __init__(
        self, mapping: mmap.mmap, geometry: Geometry, own: Sequence[Any], *, is_owner: bool
    ) -> None:
        self.geometry = geometry
        self.is_owner = is_owner
        self._mapping = mapping
        whole = memoryview(mapping)
        self._words = whole[: geometry.pool].cast("Q")
        self._pool = Pool(whole, geometry)
        self._queues = Queues(self._words, geometry)
        self._presence = Presence(self._words, is_owner=is_owner)
        #: The memfd, the receiver's and the sender's doorbell.
        self.descriptors: tuple[OwnedDescriptor, ...] = ()
        self._fds: tuple[int, ...] = ()
        #: Those that its user has been told, and that others may poll.
        self.shown: tuple[int, ...] = ()
        self._reserved, self._received = Blocks("reserved"), Blocks("received")
        #: Blocks reserved once and abandoned.
        self._spare: list[int] = []
        #: Whether this end is the sender, the receiver, or both.
        self._roles: set[int] = set()
        self._is_stopped = self._is_closed = self._is_released = self._is_inherited = False
        self._make_locks()
        forget_in_forked_child(self)
        self._wait = InterruptibleWait.made()
        if is_owner:
            self._queues.format()
        self._presence.announce()
        # Not before all else is well: until then they are the caller's to close.
        self._fds, self.descriptors = tuple(each.number for each in own), tuple(own)
        # An owner that sleeps already learns whom to watch.
        self._ring_doorbell(0)
        self._ring_doorbell(1)

    def __repr__(self) -> str:
        end = "owner" if self.is_owner else "peer"
        state = " closed" if self.closed else ""
        slots, block_size = self.geometry
        return f"<ZeroCopyRing {slots} x {block_size} bytes, {end}'s end{state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Only what the mapping's own finaliser does not do, and nothing that waits.
        if not getattr(self, "_is_released", True) and not self._is_inherited:
            for each in (self._stop, lambda: self._close_descriptors(patience=0)):
                with contextlib.suppress(Exception):
                    each()

    # -- asking --------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many blocks, and so messages, there are."""
        return self.geometry.slots

    @property
    def block_size(self) -> int:
        """How many bytes a message may have."""
        return self.geometry.block_size

    @property
    def nbytes(self) -> int:
        """Bytes mapped."""
        return self.geometry.size

    @property
    def closed(self) -> bool:
        """Whether this end can be used no more."""
        return self._is_closed or self._is_inherited

    def fileno(self) -> int:
        """The memfd; -1 when closed."""
        return self._fds[0] if self._fds else -1

    def filenos(self) -> tuple[int, ...]:
        """The three descriptors to pass to the peer, for `ZeroCopyIpc.attach`; () when closed.

        The memfd, the receiver's and the sender's doorbell. Good for `socket.send_fds`
        (SCM_RIGHTS, unix(7)), `subprocess` (pass_fds), or a forked child.
        """
        self.shown = self._fds
        return self._fds

    # -- sending -------------------------------------------------------------

    def reserve(self, timeout: float | None = 0) -> memoryview | None:
        """Return a free block to write a message into, all zeros; None if none comes in time.

        A writable view of `block_size` bytes. Raises RingClosedError if this end or the
        receiver's is closed, ValueError if the other end is the sender, RingCorruptedError.
        """
        return self._take(
            timeout, self._send_turn, layout.SENDER, layout.SENDER_WAITS, self._try_reserve
        )

    def submit(self, length: int, block: memoryview | None = None) -> None:
        """Send the first `length` bytes of a reserved block, which is then out of reach.

        `block` may be left out if only one is reserved. Raises ValueError if it is none of
        this end's or shorter than `length`, BufferError while something else has its buffer,
        RingClosedError if nobody will receive it. Slices and arrays made from it live on, and
        must not be written to.
        """
        length = checked_int("the length of a message", length, least=0, most=self.block_size)
        with self._lock:
            self._check_open()
            self._check_sendable()
            index = self._reserved.take_back(block)
            is_asleep = self._queues.put_message(index, length)
            if is_asleep:
                self._ring_doorbell(0)

    def abandon(self, block: memoryview | None = None) -> None:
        """Give a reserved block back unsent. Raises as `submit`."""
        with self._lock:
            self._check_open()
            self._spare.append(self._reserved.take_back(block))

    @contextlib.contextmanager
    def sending(self, timeout: float | None = None) -> Iterator[memoryview]:
        """Reserve a block for the body to `submit`; otherwise it is abandoned.

        Raises TimeoutError if none comes free in time, and as `reserve`.
        """
        block = self.reserve(timeout)
        if block is None:
            raise TimeoutError(f"{self!r}: no block came free within {timeout} s")
        try:
            yield block
        finally:
            if block in self._reserved and not self.closed:
                self.abandon(block)

    # -- receiving -----------------------------------------------------------

    def receive(self, timeout: float | None = 0) -> memoryview | None:
        """Return the next message where it lies, read-only; None if none comes in time.

        It stays as it is until `complete` gives its block back, also if the sender dies. What
        was sent before the other end closed is received still; then RingClosedError is
        raised. Also raised: ValueError if the other end is the receiver, RingCorruptedError.
        """
        return self._take(
            timeout, self._receive_turn, layout.RECEIVER, layout.RECEIVER_WAITS, self._try_receive
        )

    def complete(self, block: memoryview | None = None) -> None:
        """Give a received block back to the sender; in any order.

        `block` may be left out if only one is out. Raises ValueError if it is none of this
        end's, BufferError while something else still uses it, RingClosedError.
        """
        with self._lock:
            self._check_open()
            index = self._received.take_back(block)
            if self._queues.put_free(index):
                self._ring_doorbell(1)

    @contextlib.contextmanager
    def receiving(self, timeout: float | None = None) -> Iterator[memoryview]:
        """Receive a message for the body, and complete it.

        Raises TimeoutError if none comes in time, and as `receive`.
        """
        block = self.receive(timeout)
        if block is None:
            raise TimeoutError(f"{self!r}: no message came within {timeout} s")
        try:
            yield block
        finally:
            if block in self._received and not self.closed:
                self.complete(block)

    # -- ending --------------------------------------------------------------

    def stop(self) -> None:
        """Send nothing more, and let the other end know; never blocks.

        What has been sent can still be received, at both ends.
        """
        with self._lock:
            if not self.closed:
                self._stop()

    def close(self) -> None:
        """Unmap and close this end. Idempotent. Raises BusyResourceError as `release`."""
        self.release()

    def release(self) -> Outcome:
        """Take back the blocks that are out, unmap and close.

        Views of blocks are released: using one raises ValueError. Raises BusyResourceError
        while something was made from one, such as a numpy array, which would otherwise point
        to nothing; the descriptors are closed all the same.
        """
        if self._is_inherited:
            return Outcome.ALREADY_GONE
        with self._lock:
            if self._is_released:
                return Outcome.ALREADY_GONE
            self._stop()
            self._is_closed = True
        if not self._close_descriptors(_PATIENCE):
            raise BusyResourceError("a thread that waits in it was woken and has not left yet")
        with self._lock:
            return self._unmap()

    def forget_parent(self) -> None:
        """Be closed in a forked child, where this end is the parent's."""
        self._is_inherited = True
        self._make_locks()

    # -- inside --------------------------------------------------------------

    def _make_locks(self) -> None:
        #: Guards all state; held for moments only.
        self._lock = threading.Lock()
        # Who waits, so that one doorbell wakes one thread.
        self._send_turn = threading.Lock()
        self._receive_turn = threading.Lock()

    def _take(
        self,
        timeout: float | None,
        turn: threading.Lock,
        role: int,
        flag: int,
        attempt: Callable[[], memoryview | None],
    ) -> memoryview | None:
        deadline = time.monotonic() + timeout if timeout else None
        if not turn.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            return None
        try:
            while True:
                with self._lock:
                    self._check_open()
                    if role not in self._roles:
                        self._claim(role)
                    if (view := attempt()) is not None:
                        return view
                if timeout == 0:
                    return None
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._sleep(flag, left)
        finally:
            turn.release()

    def _try_reserve(self) -> memoryview | None:
        self._check_sendable()
        index = self._spare.pop() if self._spare else self._queues.take_free(self._reserved)
        if index is None:
            if self._presence.is_other_dead():
                raise RingClosedError(f"{self!r}: the receiver died, and all blocks are with it")
            return None
        return self._reserved.hand_out(index, self._pool.writable(index))

    def _try_receive(self) -> memoryview | None:
        message = self._queues.take_message(self._received)
        if message is None:
            if (
                self._is_stopped
                or self._presence.is_other_closed()
                or self._presence.is_other_dead()
            ):
                # What it sent in its last moment came before it said so.
                message = self._queues.take_message(self._received)
            else:
                return None
        if message is None:
            raise RingClosedError(f"{self!r}: all is received, and nothing more will come")
        index, length = message
        return self._received.hand_out(index, self._pool.readable(index, length))

    def _sleep(self, flag: int, timeout: float | None) -> None:
        """Sleep until the other end, or the end of this one, changes something."""
        is_sender = flag == layout.SENDER_WAITS
        with self._lock:
            self._check_open()
            doorbell = self._fds[2 if is_sender else 1]
            self._queues.set_flag(flag, True)
            has_come = self._queues.has_free() if is_sender else self._queues.has_message()
            is_due = has_come or self._is_stopped or self._presence.is_other_closed()
            watched = [doorbell, *self._presence.watched()]
        ready = set() if is_due else self._wait.wait(watched, timeout)
        with self._lock:
            # Closed, it has no memory, and its descriptors may be others' by now.
            if not self.closed:
                self._queues.set_flag(flag, False)
                if doorbell in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(doorbell)

    def _claim(self, role: int) -> None:
        if not self._presence.claim(role):
            what = "sends" if role == layout.SENDER else "receives"
            raise ValueError(
                f"{self!r}: the other end {what} already; a ring goes one way, make a second one"
            )
        self._roles.add(role)

    def _check_open(self) -> None:
        if self._is_inherited:
            raise RingClosedError(
                f"{self!r} is the parent's: in a forked child, attach(pid, ring.filenos())"
            )
        if self._is_closed:
            raise RingClosedError(f"{self!r}: make a new one")

    def _check_sendable(self) -> None:
        if self._is_stopped:
            raise RingClosedError(f"{self!r} is stopped: its process is ending")
        if self._presence.is_other_closed():
            raise RingClosedError(f"{self!r}: the other end is closed, so nobody would receive it")

    def _ring_doorbell(self, which: int) -> None:
        # Full, it rings already (eventfd(2)); half made, it has none.
        with contextlib.suppress(BlockingIOError, IndexError):
            os.eventfd_write(self._fds[1 + which], 1)

    def _stop(self) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self._presence.withdraw()
            self._ring_doorbell(0)
            self._ring_doorbell(1)

    def _close_descriptors(self, patience: float) -> bool:
        if not self._wait.close(patience):
            return False
        with self._lock:
            self._fds = ()
            for each in self.descriptors:
                each.close()
            self._presence.close()
        return True

    def _unmap(self) -> Outcome:
        if self._mapping.closed:
            return Outcome.ALREADY_GONE
        busy = self._reserved.revoke() + self._received.revoke()
        self._words.release()
        self._pool.release()
        try:
            self._mapping.close()
        except BufferError:
            what = f"{busy or 'some'} of the blocks handed out are"
            raise BusyResourceError(
                f"{what} still in use by something made from them (a slice, a numpy array, an "
                "operation in flight): let go of it"
            ) from None
        self._is_released = True
        return Outcome.RELEASED
