"""The contract between Probate and its plugins: read this first.

A resource plugin serves one kind of resource. An entry point of group `probate.resources`, whose
name is the kind, names a class or function without arguments that makes a new one at each call.
Most are a `ResourceKind`: a table, a place in the order, and at most a few functions, which has
these hooks written once. A class that marks its own with `probate.hookimpl` is the same thing
written out.

    hook                        says                                        runs on
    `ordering`       required   where the kind stands in the cleanup order  the registering thread
    `has_resources`  required   whether a process owns anything of it       the ending thread
    `cleanup`        required   release all that a process owns             a hook thread
    `quiesce`        optional   ask the users of its resources to stop      a hook thread
    `adopt`          optional   take an object that was made elsewhere      the adopting thread
    `usage`          optional   how much a process owns; by default the     the asking thread
                                tables' answer
    `observe`        optional   what a foreign OS process holds             the asking thread
    `reclaim`        optional   release a named thing whose owner has died  the settling process

A hook thread is one that can be left behind when the hook hangs at the deadline; one for each
termination, so its hooks run one after another. A hook marked with `runs_inline` promises not to
block, and runs on the ending thread, which may be an event loop's. Without a deadline all hooks
run on the ending thread, unless that is an event loop's.

`observe` and `reclaim` are specified here for plugins to implement, and are called by nobody in
this release: the journal that survives a crash of the host will.

The orchestrator calls each resource plugin on its own, so that one failure never ends a call
for all. Plugins that only wrap hooks (timing, audit, tracing) are observers: they take part in
every one of those calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import pluggy

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import Callable, Iterable

    import psutil

    from probate.models import CleanupStats, ResourceRecord, ResourceUsage
    from probate.ordering import Ordering
    from probate.outcome import Outcome, ResourceId

    #: What a `quiesce` may give to wait for. An asyncio future belongs to its own loop.
    AnyFuture = concurrent.futures.Future[Any] | asyncio.Future[Any]

PROJECT: Final = "probate"

#: Entry-point group of resource plugins.
ENTRY_POINT_GROUP: Final = "probate.resources"

#: Hooks without which a plugin is no resource plugin.
REQUIRED_HOOKS: Final = ("ordering", "has_resources", "cleanup")

_hookspec = pluggy.HookspecMarker(PROJECT)

#: Marks a plugin's function as the implementation of the hook of the same name.
hookimpl: Final = pluggy.HookimplMarker(PROJECT)

_F = TypeVar("_F", bound="Callable[..., object]")

_INLINE_MARK: Final = "probate_runs_inline"


@overload
def runs_inline(function: _F, /) -> _F: ...
@overload
def runs_inline(*, unless: Callable[[Any, int], bool]) -> Callable[[_F], _F]: ...
def runs_inline(
    function: Callable[..., object] | None = None,
    /,
    *,
    unless: Callable[[Any, int], bool] | None = None,
) -> Callable[..., object]:
    """Mark a `cleanup` or `quiesce` that can never block, so that it needs no watching.

    Where a deadline is set, a hook runs on a thread of its own, so that one that hangs can be
    left behind. A marked hook runs on the terminating thread itself, which saves the
    hand-over. The mark is a promise: a marked hook that hangs, hangs the termination.

    What may block for some resources only says so with `unless`, a method of the plugin that is
    asked, with the pid, before each call; itself it must not block.
    """

    def mark(marked: _F) -> _F:
        setattr(marked, _INLINE_MARK, unless or _never)
        return marked

    return mark if function is None else mark(function)


def is_inline(function: object) -> bool:
    """Whether `function` carries the mark of `runs_inline`, whatever a process owns."""
    return getattr(function, _INLINE_MARK, None) is _never


def runs_inline_for(function: object, plugin: object, pid: int) -> bool:
    """Whether a bound hook of `plugin` carries the mark of `runs_inline`, for this pid."""
    unless: Callable[[Any, int], bool] | None = getattr(function, _INLINE_MARK, None)
    if unless is None or unless is _never:
        return unless is not None
    try:
        return not unless(plugin, pid)
    except Exception:
        # The hook itself is about to meet, and to report, whatever is wrong.
        return False


def _never(_plugin: object, _pid: int) -> bool:
    return False


@_hookspec
def ordering() -> Ordering:  # type: ignore[empty-body]  # a specification has no body
    """Say where this kind stands. Required; asked once, at registration."""


@_hookspec
def has_resources(pid: int) -> bool:  # type: ignore[empty-body]  # a specification has no body
    """Whether `pid` owns anything of this kind. Required.

    Must be O(1), and answered by the very bookkeeping that `cleanup` empties.
    """


@_hookspec
def cleanup(pid: int) -> CleanupStats:  # type: ignore[empty-body]  # a specification has no body
    """Release all that `pid` owns of this kind, newest first. Required.

    One failure never keeps the next resource from being tried. Never waits for anybody's
    goodwill: what is still in use stays owned, is reported BUSY, and is tried again.
    """


@_hookspec
def quiesce(pid: int) -> Iterable[AnyFuture]:  # type: ignore[empty-body]  # a specification has no body
    """Ask the users of `pid`'s resources to stop; return what to wait for.

    Never blocks. All kinds are quiesced before any kind is cleaned.
    """


@_hookspec(firstresult=True)
def adopt(pid: int, resource: object) -> ResourceId | None:
    """Take responsibility for an object made elsewhere, or return None: not of this kind."""


@_hookspec
def observe(process: psutil.Process) -> Iterable[ResourceRecord]:  # type: ignore[empty-body]  # a specification has no body
    """Tell what a live foreign OS process holds of this kind, as seen from outside.

    For reports and in-use checks, never a reason to delete. Called by nobody in this release.
    """


@_hookspec
def reclaim(record: ResourceRecord, dry_run: bool) -> Outcome:  # type: ignore[empty-body]  # a specification has no body
    """Release a named thing whose owner has died, from its record alone.

    A dry run takes the same path up to the act. Called by nobody in this release.
    """


@_hookspec
def usage(pid: int) -> ResourceUsage:  # type: ignore[empty-body]  # a specification has no body
    """How many, how many bytes, and each one's description. Answered by the tables if absent."""
