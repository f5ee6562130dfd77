"""File objects: flushed, then closed; a descriptor that is somebody else's by now is left alone."""

from __future__ import annotations

import concurrent.futures
import errno
import io
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast, final

from probate import BusyResourceError, Outcome
from probate_files import layers
from probate_files.entry import PATIENCE
from probate_files.errors import LostDataError
from probate_files.filesystem import is_in_memory
from probate_files.identity import identify, is_still, path_of
from probate_files.outlet import Outlet

if TYPE_CHECKING:
    from probate_files.locks import FileLock

#: Milliseconds between two looks of a waiting flush at whether it is still wanted.
_STEP: Final = 50

#: What must no longer reach the number that a defused file once had.
_TOUCHING: Final = ("read", "readall", "readinto", "tell", "truncate", "write")


#: What will not happen: no flush of a file that waits for nobody is in the background.
_NEVER: Final = threading.Event()


@final
class OpenFile:
    """A file object with a descriptor of its own, of whatever layers.

    `native` is what the user has of it, if that is more than the file object. Raises ValueError
    for a file that is closed.
    """

    __slots__ = (
        "__weakref__", "_above", "_drained", "_failure", "_flushed", "_interrupt", "_is_given_up",
        "_may_seek", "_outlet", "_own", "_raw", "_thread", "_written_before", "file", "identity",
        "is_in_memory", "is_simple", "is_written", "locks", "native", "path", "waits_for_reader",
    )  # fmt: skip

    def __init__(
        self, file: io.IOBase, above: list[Any], raw: io.FileIO, native: object = None
    ) -> None:
        self.file = file
        self.native = file if native is None else native
        self._above = above
        self._raw = raw
        #: Where its methods are looked up, before its class.
        self._own = vars(raw)
        #: Whether a flush may seek, back to where reading had come to.
        self._may_seek = raw.readable()
        fd = raw.fileno()
        self.identity = identify(fd)
        self.path = path_of(fd)
        #: Whether a write to it may wait for a reader: a pipe, a socket, a terminal.
        self.waits_for_reader = self.identity.is_stream or (
            stat.S_ISCHR(self.identity.file_type) and raw.isatty()
        )
        #: Whether it is what `open` makes, and waits for nobody: a flush is all there is to it.
        self.is_simple = not self.waits_for_reader and layers.are_standard(above, raw)
        # What somebody has derived from the standard library's may do whatever it likes.
        self.is_in_memory = self.is_simple and is_in_memory(fd, self.identity)
        #: Whether there may be something to flush.
        self.is_written = bool(above) and raw.writable()
        #: What closing it has raised, and nobody has been told of yet.
        self._failure: OSError | None = None
        #: Locks that were taken through it here.
        self.locks: list[FileLock] = []
        #: What fell into a write, to be raised when that is through.
        self._interrupt: BaseException | None = None
        #: None until there is something that cannot simply be written.
        self._outlet: Outlet | None = None
        #: The flush under way, of a file whose reader may let it wait; None if there is none.
        self._flushed: concurrent.futures.Future[None] | None = None
        self._thread: threading.Thread | None = None
        #: Whether that flush has got at what was buffered.
        self._drained = threading.Event() if self.waits_for_reader else _NEVER
        self._is_given_up = False
        #: Bytes written when it was last found waiting; None before.
        self._written_before: int | None = None

    def __repr__(self) -> str:
        fd = self.number
        state = "closed" if fd is None else f"fd {fd}"
        return f"file {self.path!r} (mode {self._raw.mode}, {state}, {self.identity})"

    @property
    def number(self) -> int | None:
        """Its descriptor number, while that refers to the same file; else None."""
        try:
            fd = self._raw.fileno()
        except ValueError:
            return None
        return fd if is_still(fd, self.identity) else None

    # -- flushing ------------------------------------------------------------

    def quiesce(self) -> concurrent.futures.Future[None] | None:
        """Flush at once, or start to; the future is done when all is written or cannot be.

        A thread of the user's that is blocked in a write keeps the buffer locked, and whoever
        asks for it waits with it: so where a write may block, the flush has a thread of its own.
        """
        if not self.is_written or self._raw.closed:
            return self._flushed
        if not self.waits_for_reader:
            if not self._drain_simply():
                self._drain(finish=False)
            return None
        if self._flushed is None or (self._flushed.done() and self._is_waiting()):
            self._start_flush()
        return self._flushed

    def _start_flush(self) -> None:
        flushed: concurrent.futures.Future[None] = concurrent.futures.Future()
        thread = threading.Thread(
            target=self._flush_in_time, args=(flushed,), name="probate-flush", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            # No more threads can be started. To wait for a buffer is better than to lose it.
            self._drain(finish=False)
            flushed.set_result(None)
        else:
            self._thread = thread
        self._flushed = flushed

    def _flush_in_time(self, flushed: concurrent.futures.Future[None]) -> None:
        try:
            self._drain(finish=False)
            self._drained.set()
            while self._is_waiting() and not self._is_given_up:
                outlet = self._outlet
                if outlet is not None:
                    outlet.wait_for_room(_STEP)
                    outlet.retry()
        except BaseException:
            # Whatever it is, the release meets it again, and reports it.
            self._drained.set()
        finally:
            flushed.set_result(None)

    def await_drain(self, over: float) -> None:
        """Before it is given up: give its flush a chance to run, up to this monotonic time.

        On a busy machine it may not have been its turn yet.
        """
        if self._written_before is not None:
            self._drained.wait(max(0.0, over - time.monotonic()))

    def see_out(self, over: float) -> None:
        """If it was given up: wait for the thread of its flush, up to this monotonic time."""
        if self._is_given_up and self._thread is not None:
            self._thread.join(max(0.0, over - time.monotonic()))

    def _drain(self, *, finish: bool) -> None:
        """Have everything that is buffered go out, or into the outlet's rest."""
        own = self._own
        if self.waits_for_reader and self._outlet is None:
            self._set_up_outlet()
        if self._may_seek and self.number is None:
            # That would be in a stranger's file by now.
            own["seek"] = _stay
        own["write"] = self._take
        if self._outlet is not None:
            self._outlet.retry()
        layers.flush(self._above, finish=finish)
        if not self.waits_for_reader and not self._keeps_something():
            own.pop("write", None)
        self._let_interrupt()

    def _drain_simply(self) -> bool:
        """Have everything that is buffered go out; False if that takes more than a flush."""
        if not self.is_simple or self._may_seek or self._outlet is not None:
            return False
        own = self._own
        own["write"] = self._take
        try:
            # Each layer hands it on to the next.
            self._above[0].flush()
        except ValueError:
            # Closed meanwhile, or detached.
            return False
        # What could not be written has been taken by an outlet, which stays in the write's place.
        is_done = self._outlet is None
        if is_done:
            own.pop("write", None)
        if self._interrupt is not None:
            self._let_interrupt()
        return is_done

    def _take(self, data: bytes | memoryview) -> int:
        """In place of the file's own write: take all of `data`, which goes out if it can."""
        if self._outlet is not None:
            return self._outlet.write(data)
        taken = bytes(data)
        nbytes = len(taken)
        written: list[int] = []
        try:
            fd = self._raw.fileno()
            if is_still(fd, self.identity):
                # Called from C, so that no interrupt keeps us from knowing what has been written.
                written.extend(map(os.write, (fd,), (taken,)))
        except (OSError, ValueError):
            # Whatever is wrong, the outlet meets it again.
            pass
        except BaseException as error:
            # The layers would write all of it once more.
            self._interrupt = error
        if written == [nbytes]:
            return nbytes
        (self._outlet or self._set_up_outlet()).write(taken[sum(written) :])
        return nbytes

    def _let_interrupt(self) -> None:
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise interrupt

    def _set_up_outlet(self) -> Outlet:
        outlet = Outlet(self._raw, self.identity, may_wait=self.waits_for_reader)
        self._outlet = outlet
        return outlet

    # -- closing -------------------------------------------------------------

    def release(self, patience: float = PATIENCE) -> Outcome:
        """Flush and close it.

        Raises BusyResourceError while its reader may yet read, LostDataError for what could not
        be written, OSError if closing fails; the descriptor is gone in the latter two cases.
        """
        failure, self._failure = self._failure, None
        if failure is not None and self._raw.closed:
            raise failure
        if self._raw.closed and not self._keeps_something():
            self._close()
            return Outcome.ALREADY_GONE
        if self.waits_for_reader:
            self._let_flow(patience)
        if not self.is_simple:
            # No layer may close the number: not before all is out, nor a stranger's.
            self._own["close"] = _do_nothing
        try:
            if self.is_written and not self._raw.closed:
                if not self._drain_simply():
                    self._drain(finish=True)
            elif self._outlet is not None:
                self._outlet.retry()
        except BaseException:
            self._close()
            raise
        if self.waits_for_reader and self._is_waiting():
            # The last bytes, such as a checksum, or a user's last words have filled it anew.
            self._own.pop("close", None)
            self._let_flow(patience)
        was_ours = self._close()
        if self._outlet is not None:
            self._complain(self._outlet)
        return Outcome.RELEASED if was_ours else Outcome.ALREADY_GONE

    def close_simply(self) -> bool:
        """Flush and close it, if there is nothing to be said of it; else that is `release`'s."""
        raw = self._raw
        if raw.closed or (self.is_written and not self._drain_simply()):
            return False
        if not self.is_simple or self._outlet is not None:
            return False
        try:
            # Asked for only now: the less comes in between, the better.
            if not is_still(raw.fileno(), self.identity):
                return False
            raw.close()
        except ValueError:
            return False
        except OSError as error:
            self._failure = error
            return False
        return True

    def _let_flow(self, patience: float) -> None:
        """Let the flush of a file that may wait go on. Raises as `_wait_or_give_up`."""
        flushed = self.quiesce()
        if flushed is None:
            return
        concurrent.futures.wait([flushed], patience)
        if not flushed.done():
            self._wait_or_give_up()
        if self._thread is not None:
            self._thread.join()

    def _keeps_something(self) -> bool:
        return self._outlet is not None and bool(self._outlet.rest)

    def _is_waiting(self) -> bool:
        """Whether there is something left that may yet be written."""
        return self._outlet is not None and bool(self._outlet.rest) and self._outlet.error is None

    def _wait_or_give_up(self) -> None:
        """Let a reader that reads go on, one that has not yet begun begin, and no other."""
        outlet = self._outlet
        written = outlet.written if outlet is not None else 0
        if self._written_before is None or written > self._written_before:
            self._written_before = written
            raise BusyResourceError(self._waiting_words(outlet))
        self._is_given_up = True
        if outlet is not None:
            outlet.close()
        nbytes = len(outlet.rest) if outlet is not None and self._drained.is_set() else None
        reason = self._waiting_words(outlet)
        self._close()
        raise LostDataError(nbytes, self.path, errno.EAGAIN, reason)

    def _waiting_words(self, outlet: Outlet | None) -> str:
        if outlet is None or not self._drained.is_set():
            return "another thread is blocked in a write to it, because its reader does not read"
        return f"it is full, its reader does not read, and {len(outlet.rest)} bytes are left"

    def _close(self) -> bool:
        """Close the descriptor, past all layers: a thread blocked in one keeps that locked.

        Returns whether it was ours still; a stranger's is never touched again.
        """
        raw, own, outlet = self._raw, self._own, self._outlet
        own.pop("close", None)
        try:
            # Asked for only now: the less comes in between, the better.
            if self.number is not None:
                own.pop("write", None)
                raw.close()
                return True
            if not raw.closed:
                _defuse(raw, self._above)
            return False
        finally:
            if outlet is not None:
                outlet.close()

    def _complain(self, outlet: Outlet) -> None:
        if not outlet.rest:
            return
        error = outlet.error or BlockingIOError(errno.EAGAIN, "it is full, and is not being read")
        number = error.errno or errno.EIO
        raise LostDataError(len(outlet.rest), self.path, number, error.strerror or "") from error


def opened(file: object) -> OpenFile:
    """The entry of a file object that was opened for us. Raises TypeError for what is none."""
    found = layers.layers_of(file) if isinstance(file, io.IOBase) else None
    if found is None:
        raise TypeError(f"no file object with a descriptor: {file!r}")
    return OpenFile(cast("io.IOBase", file), *found)


def _do_nothing(*_: object) -> None:
    """In place of a method that would close, or warn of, somebody else's descriptor."""


def _stay(*_: object) -> int:
    """In place of a seek: nowhere, successfully."""
    return 0


def _refuse(*_: object) -> NoReturn:
    raise OSError(errno.EBADF, "its descriptor was closed by somebody else, and is another's now")


def _not_there() -> NoReturn:
    raise ValueError("I/O operation on a file whose descriptor was closed by somebody else")


def _defuse(raw: io.FileIO, above: list[Any]) -> None:
    """Have a file object never touch its number again, now or when it is collected.

    A `FileIO` closes its number whoever has it by then. It cannot be told to forget it, but all
    layers, and their finalisers, look methods up on the instance first.
    """
    own = vars(raw)
    own.update(dict.fromkeys(_TOUCHING, _refuse))
    own["fileno"] = own["isatty"] = _not_there
    own["seek"] = _stay
    own["_dealloc_warn"] = _do_nothing
    for layer in (raw, *above):
        vars(layer)["close"] = _do_nothing
