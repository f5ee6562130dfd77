"""Traces hook calls: a line when one begins and one when it ends, below what it is part of.

Nothing of this is imported, and pluggy is not monitored, unless a trace is asked for.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from probate.errors import describe_error, safe_repr
from probate.models import CleanupStats, ResourceUsage
from probate.system.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pluggy

    from probate.models import CleanupFailure, CleanupResult

T = TypeVar("T")

#: What PROBATE_TRACE may say besides a file, as for other settings that are on or off.
_OFF: Final = frozenset({"", "0", "false", "f", "no", "n", "off"})
_ON: Final = frozenset({"1", "true", "t", "yes", "y", "on"})

#: Characters of a line that what was returned, or handed over, takes at most: a line is one write,
#: and up to PIPE_BUF bytes those of several threads and processes do not mix (pipe(7)).
_WIDTH: Final = 300

#: When the calls began that this thread, or task, is in, outermost first.
_begun: Final[ContextVar[tuple[float, ...]]] = ContextVar("probate_trace", default=())


def trace_target(said: object) -> str | bool:
    """Return what a setting says: whether to trace, or to which file. Raises ValueError."""
    if not isinstance(said, (str, bool)):
        raise ValueError("must be on, off, or a file")  # noqa: TRY004  pydantic's way
    word = str(said).lower()
    return word in _ON if word in _ON | _OFF else said


def call_trace(to: str | bool) -> CallTrace | None:
    """Return what writes of calls: to a file, or, for True, to standard error.

    A file that cannot be written is logged, and nothing is traced; nor is it where there is no
    standard error, whose number may be anything's.
    """
    if not isinstance(to, str) and sys.stderr is None:
        return None
    write: Callable[[bytes], object] = partial(os.write, 2)
    if isinstance(to, str):
        path = Path(to).absolute()
        try:
            _append(path, b"")
        except OSError as error:
            logger.warning("hook calls are not traced: %s", error)
            return None
        write = partial(_append, path)
    return CallTrace(write)


@final
class CallTrace:
    """Writes of each call its kind, pid, result and time; thread-safe, and never raises.

    A call is indented below the one that it is made in, and below the termination that it is part
    of, whichever thread it runs on.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def before(
        self, hook: str, impls: Sequence[pluggy.HookImpl], kwargs: Mapping[str, Any]
    ) -> None:
        """Tell of a call that pluggy is about to make."""
        # Where nobody implements it, nobody is called.
        if impls:
            self._begin(_call(hook, impls, kwargs))

    def after(
        self,
        outcome: pluggy.Result[Any],
        hook: str,
        impls: Sequence[pluggy.HookImpl],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Tell what came of it."""
        if not impls:
            return
        result = None
        if outcome.exception is None:
            result = outcome.get_result()
            kinds = _kinds(impls)
            if hook == "has_resources" and len(result) == len(kinds):
                result = [kind for kind, has in zip(kinds, result, strict=True) if has]
        self._end(_call(hook, impls, kwargs), result, outcome.exception)

    def alone(self, hook: str, kind: str, pid: int, function: Callable[[int], T]) -> T:
        """Call a hook of one plugin without pluggy, and tell of it all the same."""
        what = f"{hook} {kind} pid={pid}"
        self._begin(what)
        try:
            result = function(pid)
        except BaseException as error:
            self._end(what, None, error)
            raise
        self._end(what, result, None)
        return result

    def of_termination(self, pid: int) -> TerminationTrace:
        """Tell that a termination begins."""
        return TerminationTrace(self, pid)

    def _begin(self, what: str) -> None:
        self.line(len(_begun.get()), what)
        _begun.set((*_begun.get(), time.perf_counter()))

    def _end(self, what: str, result: object, error: BaseException | None) -> None:
        now = time.perf_counter()
        *outer, begun = _begun.get() or (now,)
        _begun.set(tuple(outer))
        self.line(len(outer), f"{what} {_came_of_it(result, error)}", now - begun)

    def line(self, depth: int, text: str, seconds: float | None = None) -> None:
        """Write one line of who calls, and what."""
        who = f"{os.getpid()} {threading.current_thread().name}"
        took = "" if seconds is None else f" in {seconds * 1000:.3f} ms"
        line = f"probate {who}: {'  ' * depth}{text}{took}\n"
        with suppress(OSError):
            self._write(line.encode(errors="backslashreplace"))


@final
class TerminationTrace:
    """Writes when a termination begins and ends, and has what it calls indented below."""

    def __init__(self, trace: CallTrace, pid: int) -> None:
        self._trace = trace
        self._what = f"terminate pid={pid}"
        self._outer = _begun.get()
        self._began = time.perf_counter()
        trace.line(len(self._outer), self._what)

    def within(self, function: Callable[[], T]) -> T:
        """Make a call that is part of it."""
        token = _begun.set((*self._outer, self._began))
        try:
            return function()
        finally:
            _begun.reset(token)

    def end(self, result: CleanupResult) -> None:
        """Write what came of it."""
        seconds = time.perf_counter() - self._began
        account = _freed(result.stats, result.errors)
        self._trace.line(len(self._outer), f"{self._what} -> {account}", seconds)


def _append(path: Path, line: bytes) -> None:
    # Opened for each line, in one write each: no descriptor is held, and several processes write.
    with open(path, "ab", buffering=0) as file:
        file.write(line)


def _kinds(impls: Sequence[pluggy.HookImpl]) -> list[str]:
    """Name the kinds that are called, in that order; observers are none."""
    # The last registered is called first.
    return [each.plugin_name for each in reversed(impls) if not (each.wrapper or each.hookwrapper)]


def _call(hook: str, impls: Sequence[pluggy.HookImpl], kwargs: Mapping[str, Any]) -> str:
    """Say which hook of which kinds is called, for whom and with what."""
    kinds = _kinds(impls)
    what = [hook, kinds[0] if len(kinds) == 1 else f"({len(kinds) or 'no'} kinds)"]
    if "pid" in kwargs:
        what.append(f"pid={kwargs['pid']}")
    if "process" in kwargs:
        what.append(f"os_pid={kwargs['process'].pid}")
    if "resource" in kwargs:
        what.append(type(kwargs["resource"]).__qualname__)
    if "record" in kwargs:
        what += [_told(kwargs["record"].description), f"dry_run={kwargs['dry_run']}"]
    if "notice" in kwargs:
        what += [kwargs["notice"].call, _told(kwargs["notice"].name)]
    return " ".join(what)


def _came_of_it(result: object, error: BaseException | None) -> str:
    return f"-> {_told(result)}" if error is None else f"raised {_told(describe_error(error))}"


def _told(thing: object) -> str:
    """Say in a few words what a hook has returned."""
    if isinstance(thing, CleanupStats):
        return _freed(thing, thing.errors)
    if isinstance(thing, ResourceUsage):
        text = f"{thing.count}, {thing.nbytes} bytes"
    elif isinstance(thing, (list, tuple)):
        text = ", ".join(map(_told, thing)) or "nothing"
    else:
        text = safe_repr(thing, str if isinstance(thing, str) else repr)
    return _bounded(text)


def _freed(stats: CleanupStats, errors: Sequence[CleanupFailure]) -> str:
    counts = f"{stats.resources_freed} freed, {stats.bytes_freed} bytes, "
    counts += f"{stats.errors_encountered} errors"
    return _bounded("; ".join([counts, *map(str, errors)]))


def _bounded(text: str) -> str:
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
