"""One io_uring instance (io_uring(7)), which never frees what the kernel still writes to."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Self, final

from probate import BusyResourceError, Outcome
from probate.system import built, checked_int, forget_in_forked_child
from probate_rings.errors import RingClosedError, RingFullError
from probate_rings.interruptible import InterruptibleWait
from probate_rings.kernelring import (
    CANCEL_ALL,
    CANCEL_ANY,
    CQE_SIZE,
    SQE_SIZE,
    KernelRing,
    Opcode,
    pack_entry,
)
from probate_rings.operation import Completion, Operation

if TYPE_CHECKING:
    from _typeshed import HasFileno

#: The kernel's own limit (IORING_MAX_ENTRIES).
MAX_ENTRIES: Final = 32768

#: Seconds that cancelled operations get to complete, and woken sleepers to leave.
PATIENCE: Final = 1.0

#: Seconds between two cancellations: one that comes while an operation is being set up, or
#: taken up by a kernel worker, misses it.
_CANCEL_AGAIN: Final = 0.05


def checked_entries(entries: object) -> int:
    """The size of the submission queue, a power of two. Raises TypeError or ValueError."""
    return 1 << (checked_int("entries", entries, least=1, most=MAX_ENTRIES) - 1).bit_length()


def queue_bytes(entries: int) -> int:
    """Bytes of the entries of both queues; the completion queue has twice as many."""
    return entries * (SQE_SIZE + 2 * CQE_SIZE)


@final
class IoUring:
    """An io_uring: operations are prepared, submitted, and reaped as completions.

    Each `read`, `write`, `nop` and `timeout` returns a token, by which its `Completion` is
    known. Buffers are kept from being freed or resized until their operation has completed.
    Thread-safe; one thread at a time waits in `reap`, others queue up behind it. The kernel
    cancels what a thread has submitted when that thread ends.

    Every method raises RingClosedError once the ring is stopped or closed, unless it says
    otherwise. Made by `IoUringManager` only.
    """

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self._is_stopped = self._is_released = self._is_inherited = False
        #: None when closed: nothing may touch its memory then.
        self._ring: KernelRing | None = None
        #: The numbers that its user has been told, and that others may poll.
        self.shown: tuple[int, ...] = ()
        self._tokens = itertools.count(1)
        self._pending: list[Operation] = []
        #: What the kernel has, by token.
        self._in_flight: dict[int, Operation] = {}
        self._completed: deque[Completion] = deque()
        self._make_locks()
        forget_in_forked_child(self)
        self._ring = built(
            partial(KernelRing, entries), lambda ring: ring, lambda ring: ring.descriptor.close()
        )
        self._fd = self._ring.fd
        #: The numbers that its release closes.
        self.descriptors = self._ring.descriptors
        try:
            self._wait = InterruptibleWait.made()
        except BaseException:
            self._exit()
            raise

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._in_flight)} in flight"
        return f"<IoUring {self.entries} entries, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_ring", None) is None or self._is_inherited:
            return
        if not self._in_flight:
            with contextlib.suppress(Exception):
                self._wait.close(patience=0)
                self._exit()
        else:
            # The kernel may write to these buffers at any time: they must never be freed.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._in_flight))

    # -- asking --------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Bytes of the two queues' entries."""
        return queue_bytes(self.entries)

    @property
    def capacity(self) -> int:
        """How many operations may be under way: as many as there is room for completions."""
        return 2 * self.entries

    @property
    def in_flight(self) -> int:
        """How many operations the kernel has."""
        return len(self._in_flight)

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._is_released or self._is_inherited

    def fileno(self) -> int:
        """The ring's descriptor, readable when there are completions; -1 when closed."""
        if self.closed:
            return -1
        self.shown = (self._fd,)
        return self._fd

    # -- operations ----------------------------------------------------------

    def read(self, fd: int | HasFileno, into: int | bytearray, offset: int | None = 0) -> int:
        """Prepare to read from a file; return the token.

        `into` is a bytearray, or a number of bytes, for which one is made. `offset` is in
        bytes from the file's start; None is its current position; pipes and sockets have
        none. Raises TypeError or ValueError for bad arguments, RingFullError.
        """
        return self._prepare(Operation.read(next(self._tokens), fd, into, offset))

    def write(self, fd: int | HasFileno, data: bytes | bytearray, offset: int | None = 0) -> int:
        """Prepare to write to a file, uncopied; return the token.

        A bytearray may not be resized, and is best left alone, until that has completed.
        `offset` and errors are those of `read`.
        """
        return self._prepare(Operation.write(next(self._tokens), fd, data, offset))

    def nop(self) -> int:
        """Prepare an operation that does nothing but complete; return the token."""
        return self._prepare(Operation(next(self._tokens), Opcode.NOP))

    def timeout(self, seconds: float) -> int:
        """Prepare a completion in so many seconds from its submission; return the token.

        Raises TypeError or ValueError for what is no number of seconds, RingFullError.
        """
        return self._prepare(Operation.timeout(next(self._tokens), seconds))

    def submit(self) -> int:
        """Give the kernel all that is prepared; return how many operations that are.

        Raises OSError as io_uring_enter(2); what it did not take yet goes with the next one.
        """
        with self._lock:
            self._check_accepting()
            return self._submit()

    def reap(self, min_complete: int = 0, timeout: float | None = None) -> list[Completion]:
        """Take the completions that there are, in the order of completion.

        What is prepared is submitted first. Waits until there are `min_complete`, for at most
        `timeout` seconds (None: as long as it takes), and no longer than anything is under
        way; so there may be fewer. With 0 it never waits, and leaves all to another thread
        that does. After a stop the remaining ones can still be reaped.
        """
        min_complete = checked_int("min_complete", min_complete, least=0)
        left = timeout if min_complete else 0.0
        deadline = None if left is None else time.monotonic() + left
        if not self._turn.acquire(timeout=-1 if left is None else max(0.0, left)):
            return []
        try:
            while True:
                with self._lock:
                    self._check_open()
                    # The kernel takes nothing while completions find no room.
                    self._collect()
                    self._submit()
                    self._collect()
                    is_over = not self._in_flight or (left is not None and left <= 0)
                    if is_over or len(self._completed) >= min_complete:
                        return self._take_completed()
                self._wait.wait([self._fd], left)
                left = None if deadline is None else deadline - time.monotonic()
        finally:
            self._turn.release()

    # -- ending --------------------------------------------------------------

    def stop(self) -> None:
        """Take no more operations, and ask the kernel to cancel those that it has.

        Never blocks. What was not submitted completes as cancelled at once.
        """
        with self._lock:
            if self.closed or self._is_stopped:
                return
            self._is_stopped = True
            for operation in self._pending:
                self._in_flight.pop(operation.token, None)
                self._completed.append(operation.finish(-errno.ECANCELED))
            self._pending.clear()
            self._cancel()

    def drain(self, patience: float = PATIENCE) -> int:
        """Wait until the kernel has completed all that it has; return how many it has still.

        To be called after `stop`. Waits for the kernel only, for at most `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            with self._lock:
                if self.closed:
                    return 0
                self._collect()
                if not self._in_flight:
                    return 0
                left = deadline - time.monotonic()
                if left <= 0:
                    return len(self._in_flight)
            if not self._wait.wait([self._fd], min(left, _CANCEL_AGAIN)):
                with self._lock:
                    if not self.closed:
                        self._cancel()

    def close(self) -> None:
        """Stop, drain and free. Idempotent. Raises BusyResourceError as `release`."""
        self.release()

    def release(self, patience: float = PATIENCE) -> Outcome:
        """Cancel, drain, and only then unmap and close.

        Raises BusyResourceError if something is in flight after `patience` seconds: then
        nothing is freed, and this can be called again.
        """
        if self.closed:
            return Outcome.ALREADY_GONE
        self.stop()
        if count := self.drain(patience):
            with self._lock:
                some = ", ".join(map(repr, itertools.islice(self._in_flight.values(), 3)))
            raise BusyResourceError(
                f"the kernel has not given back {count} operations, which were cancelled "
                f"({some}): nothing is freed before it does"
            )
        if not self._wait.close(PATIENCE):
            raise BusyResourceError("a thread that waits in it was woken and has not left yet")
        with self._lock:
            return self._exit()

    def forget_parent(self) -> None:
        """Be closed in a forked child: the queues are shared with the parent, whose they are."""
        self._is_inherited = True
        self._make_locks()

    # -- inside: the lock is held --------------------------------------------

    def _make_locks(self) -> None:
        #: Guards all state, and each system call, of which none waits.
        self._lock = threading.Lock()
        # Who waits for completions, so that each is seen by somebody.
        self._turn = threading.Lock()

    def _prepare(self, operation: Operation) -> int:
        with self._lock:
            self._check_accepting()
            if len(self._pending) + len(self._in_flight) >= self.capacity:
                raise RingFullError(repr(self), self.capacity)
            self._pending.append(operation)
        return operation.token

    def _submit(self) -> int:
        ring = self._handle()
        count, start = len(self._pending), ring.pushed
        try:
            for operation in self._pending:
                if ring.is_full:
                    self._enter(ring)
                if ring.is_full:
                    raise OSError(errno.EBUSY, f"{self!r}: the submission queue stays full")
                # First: once it is pushed the kernel may get it, whatever is raised.
                self._in_flight[operation.token] = operation
                ring.push(operation.entry)
        finally:
            del self._pending[: ring.pushed - start]
        self._enter(ring)
        return count

    def _enter(self, ring: KernelRing) -> None:
        while ring.waiting:
            try:
                taken = ring.enter()
            except InterruptedError:
                continue
            if not taken:
                break

    def _collect(self) -> None:
        ring = self._handle()
        while True:
            while (completion := ring.peek()) is not None:
                token, result = completion
                operation = self._in_flight.pop(token, None)
                # A cancellation completes as well, and is nobody's.
                if operation is not None:
                    self._completed.append(operation.finish(result))
                ring.advance()
            # The kernel kept what found no room.
            if not ring.flush_overflow():
                return

    def _cancel(self) -> None:
        if not self._in_flight:
            return
        ring = self._handle()
        # What the kernel cannot take now is taken when `drain` comes by again.
        with contextlib.suppress(OSError):
            self._enter(ring)
            if not ring.is_full:
                token, flags = next(self._tokens), CANCEL_ANY | CANCEL_ALL
                ring.push(pack_entry(Opcode.CANCEL, token, flags=flags))
                self._enter(ring)

    def _exit(self) -> Outcome:
        ring, self._ring = self._ring, None
        self._is_released = True
        if ring is None:
            return Outcome.ALREADY_GONE
        ring.close()
        return Outcome.RELEASED

    def _take_completed(self) -> list[Completion]:
        taken = list(self._completed)
        self._completed.clear()
        if self._is_stopped and not taken and not self._in_flight:
            raise RingClosedError(f"{self!r} is stopped, and all is reaped")
        return taken

    def _check_accepting(self) -> None:
        self._check_open()
        if self._is_stopped:
            raise RingClosedError(f"{self!r} is stopped: its process is ending")

    def _check_open(self) -> None:
        if self._is_inherited:
            raise RingClosedError(f"{self!r} is the parent's: a forked child makes its own")
        self._handle()

    def _handle(self) -> KernelRing:
        if self._ring is None:
            raise RingClosedError(f"{self!r}: make a new one")
        return self._ring
