"""File objects: flushed, then closed; a descriptor that is somebody else's by now is left alone."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import stat
import threading
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from probate import Outcome
from probate.errors import describe_error, safe_repr
from probate.system import OwnedDescriptor, close_at_once, path_of
from probate_files.entry import Entry, is_in_memory
from probate_files.errors import LostDataError
from probate_files.layers import CODECS, layers_of

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable

    from probate.system import FileIdentity
    from probate_files.locks import FileLock

_PLAIN: Final = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom)

#: What must no longer reach the number that a disarmed file once had.
_TOUCHING: Final = ("read", "readall", "readinto", "tell", "truncate", "write")

#: Milliseconds between two looks of a flush into a full non-blocking pipe at who has its number.
_LOOK: Final = 1000


class FileEntry(Entry):
    """One owned thing that has a file object, or may have one."""

    __slots__ = ()

    @property
    @abstractmethod
    def open_file(self) -> OpenFile | None:
        """The file object whose buffered data is written by its release; None if there is none."""

    @property
    def descriptors(self) -> tuple[OwnedDescriptor, ...]:
        """The descriptor numbers that its release closes."""
        file = self.open_file
        return () if file is None else (file.descriptor,)


@final
class OpenFile(FileEntry):
    """A file object with a descriptor of its own, of whatever layers.

    `native` is what the user has of it, if that is more than the file object. Raises TypeError
    for what has no descriptor, ValueError for what is closed.
    """

    __slots__ = (
        "_above", "_failure", "_is_flushed", "_native", "_raw", "_strangers", "_turn", "began",
        "closing", "descriptor", "file", "flushing", "is_in_memory", "is_standard", "is_stream",
        "is_writable", "is_written", "locks", "path",
    )  # fmt: skip

    def __init__(self, file: object, native: object = None) -> None:
        layers = layers_of(file)
        if layers is None:
            raise TypeError(f"no file object with a descriptor: {file!r}")
        self.file = file
        self._native = None if native is file else native
        *self._above, self._raw = layers
        fd = self._raw.fileno()
        self.descriptor = OwnedDescriptor(fd, self._raw.fileno)
        self.path = path_of(fd)
        #: Whether a write to it may wait for a reader: a pipe, a socket, a terminal.
        self.is_stream = self.identity.is_stream or (
            stat.S_ISCHR(self.identity.file_type) and self._raw.isatty()
        )
        #: Whether it is what `open` makes. Whatever is derived from it may do as it likes.
        self.is_standard = type(self._raw) is io.FileIO and all(
            type(each) in _PLAIN for each in self._above
        )
        self.is_in_memory = self.is_standard and is_in_memory(fd)
        #: Whether there may be something to flush.
        self.is_writable = self._raw.writable()
        self.is_written = bool(self._above) and self.is_writable
        #: How many of the layers are somebody else's, put on top of it since.
        self._strangers = 0
        #: Locks that were taken through it here.
        self.locks: list[FileLock] = []
        #: Held by the thread that flushes or closes it; and since when that is, by the monotonic
        #: clock, None if there is none.
        self._turn = threading.Lock()
        self.began: float | None = None
        #: Its latest flush, and its release, where they are on a thread of their own.
        self.flushing: concurrent.futures.Future[None] | None = None
        self.closing: concurrent.futures.Future[Outcome] | None = None
        self._is_flushed = False
        #: What could not be written, and nobody has been told of yet.
        self._failure: LostDataError | None = None

    def __repr__(self) -> str:
        fd = self.number
        state = "closed" if fd is None else f"fd {fd}"
        return f"file {self.path!r} (mode {self._raw.mode}, {state}, {self.identity})"

    @property
    def native(self) -> object:
        """The file object, or what somebody has wrapped it in."""
        return self.file if self._native is None else self._native

    @property
    def open_file(self) -> OpenFile:
        """Itself."""
        return self

    @property
    def identity(self) -> FileIdentity:
        """The file that its number referred to when it was acquired."""
        return self.descriptor.identity

    @property
    def layers(self) -> list[object]:
        """All layers, the outermost first."""
        return [*self._above, self._raw]

    def layer(self, index: int) -> object:
        """One of the layers."""
        return self._raw if index == len(self._above) else self._above[index]

    def has_layer(self, thing: object) -> bool:
        """Whether it is one of the layers."""
        return any(thing is each for each in self.layers)

    def put_on_top(self, layers: list[object]) -> None:
        """Flush and close these first from now on, in this order: they write to it."""
        if layers:
            self._above[:0] = layers
            self._strangers += len(layers)
            self.is_written = True
            self.is_standard = self.is_in_memory = self._is_flushed = False

    @property
    def number(self) -> int | None:
        """Its descriptor number, while that refers to the same file; else None."""
        return self.descriptor.number if self.descriptor.is_ours else None

    @property
    def may_wait(self) -> bool:
        """Whether to flush and close it may wait for a disk, or for a reader.

        A disk that has just taken a flush takes some last words too; of a reader nobody knows.
        """
        return (
            self.is_written
            and not self.is_in_memory
            and not self._raw.closed
            and (self.is_stream or not self._is_flushed)
        )

    # -- flushing and closing ------------------------------------------------

    def flush(self) -> None:
        """Write all that is buffered. What fails is tried again, and reported, by `release`."""
        with self._turn:
            self.began = time.monotonic()
            try:
                if self.is_written and self.number is not None:
                    self._flush()
                    self._is_flushed = True
            except LostDataError as error:
                if self._is_text:
                    # It forgets what it could not hand on, and a second flush would succeed.
                    self._failure = error
            finally:
                self.began = None

    def release(self, first: Callable[[], object] | None = None) -> Outcome:
        """Flush and close it. Raises LostDataError for what could not be written; closed it is.

        `first` is called before it is closed, and may close it.
        """
        with self._turn:
            self.began = time.monotonic()
            try:
                outcome = self._release(first)
            finally:
                self.began = None
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            return outcome

    def _release(self, first: Callable[[], object] | None) -> Outcome:
        if self._raw.closed:
            return Outcome.ALREADY_GONE
        number = self.number
        try:
            if self.is_written and number is not None:
                self._flush()
        except BaseException:
            # What is lost was known when the flush failed.
            with contextlib.suppress(LostDataError):
                self._close(first)
            raise
        # Asked for anew where the flush may have had to wait.
        return self._close(first, is_ours=number is not None and self.is_in_memory)

    def _flush(self) -> None:
        """Have each layer hand down what it holds back, and the kernel take it."""
        for layer in self._above:
            if not isinstance(layer, io.IOBase):
                # All that it can do is to be closed.
                continue
            try:
                while True:
                    try:
                        layer.flush()
                        break
                    except BlockingIOError as error:
                        self._wait_for_room(error)
            except ValueError:
                # It was detached since, and holds nothing.
                continue
            except OSError as error:
                raise self._lost(error, layer) from error
            if self.is_standard:
                # Each has flushed what is beneath it.
                return

    def _wait_for_room(self, error: BlockingIOError) -> None:
        """Wait until there is room in a pipe that does not block, or its reader is gone."""
        if self._is_text:
            # It may have forgotten what did not fit in.
            self._failure = self._lost(error)
        fd = self.number
        if fd is None:
            raise error
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        poll.poll(_LOOK)

    def _close(
        self, first: Callable[[], object] | None = None, *, is_ours: bool = False
    ) -> Outcome:
        if not is_ours and self.number is None:
            held = self._disarm()
            if held:
                reason = "somebody else has closed its descriptor"
                raise LostDataError(sum(held) or None, self.path, errno.EBADF, reason)
            return Outcome.ALREADY_GONE
        if self.identity.file_type == stat.S_IFSOCK:
            close_at_once(self.descriptor.number)
        if first is not None:
            try:
                first()
            finally:
                outcome = Outcome.RELEASED if self._raw.closed else self._close(is_ours=is_ours)
            return outcome
        if not self.is_written:
            # Nothing can be lost; and a thread blocked in a read has all layers locked but this.
            self._raw.close()
            return Outcome.RELEASED
        failure: LostDataError | None = None
        for layer in (*self._above, self._raw):
            try:
                _end(layer)
                if self.is_standard:
                    # Each has closed what is beneath it.
                    break
            except Exception as error:
                if isinstance(error, ValueError) and isinstance(layer, _PLAIN):
                    # It was detached since.
                    continue
                failure = failure or self._lost(error, layer)
        if failure is not None:
            raise failure
        return Outcome.RELEASED

    @property
    def _is_text(self) -> bool:
        return any(isinstance(each, io.TextIOWrapper) for each in self._above)

    def _lost(self, error: Exception, layer: object = None) -> LostDataError:
        nbytes = 0
        # What a buffer could not write it keeps. There are no positions in a pipe.
        with contextlib.suppress(OSError, ValueError):
            if self._above and isinstance(self._above[-1], _PLAIN):
                nbytes = self._above[-1].tell() - self._raw.tell()
        if isinstance(error, OSError):
            number, reason = error.errno or errno.EIO, error.strerror or ""
        else:
            number, reason = errno.EIO, describe_error(error)
        if any(layer is each for each in self._above[: self._strangers]):
            reason = f"{reason or os.strerror(number)}, in what stands above it, {safe_repr(layer)}"
        return LostDataError(nbytes if nbytes > 0 else None, self.path, number, reason)

    def _disarm(self) -> list[int]:
        """Have the file object let go of a number that is another's; count what it still held.

        A `FileIO` closes its number whoever has it by then, at the latest when it is collected,
        and cannot be told to forget it. But all layers, and their finalisers, look methods up on
        the instance first.
        """
        held: list[int] = []

        def lose(data: bytes | memoryview) -> int:
            held.append(len(data))
            return len(data)

        own = vars(self._raw)
        own.update(write=lose, seek=_stay, close=_do_nothing, _dealloc_warn=_do_nothing)
        for layer in self._above:
            try:
                if isinstance(layer, _PLAIN):
                    layer.flush()
                else:
                    _end(layer)
            except ValueError:
                # It was detached since, and holds nothing.
                continue
            except Exception:
                # What it held nobody will know.
                held.append(0)
        own.update(dict.fromkeys(_TOUCHING, _refuse), fileno=_not_there, isatty=_not_there)
        for layer in self._above:
            with contextlib.suppress(TypeError):
                vars(layer)["close"] = _do_nothing
        return held


def open_file_of(entry: Entry) -> OpenFile | None:
    """The file object whose buffered data is written by the release of an owned thing, if any."""
    return entry.open_file if isinstance(entry, FileEntry) else None


def _end(layer: Any) -> None:
    """Have a layer write its last, and close it."""
    if isinstance(layer, CODECS):
        # What it calls its own `close` is that of the file beneath.
        layer.reset()
    else:
        layer.close()


def _do_nothing(*_: object) -> None:
    """In place of a method that would close, or warn of, somebody else's descriptor."""


def _stay(*_: object) -> int:
    """In place of a seek: nowhere, successfully."""
    return 0


def _refuse(*_: object) -> NoReturn:
    raise OSError(errno.EBADF, "its descriptor was closed by somebody else, and is another's now")


def _not_there() -> NoReturn:
    raise ValueError("I/O operation on a file whose descriptor was closed by somebody else")
