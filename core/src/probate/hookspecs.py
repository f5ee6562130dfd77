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
    `reclaim`        optional   release a named thing whose owner has died  the reclaiming process
    `noticed`        optional   what a supervised program makes by a name   the settling process

A hook thread is one that can be left behind when the hook hangs at the deadline; one for each
termination, so its hooks run one after another. A hook marked with `runs_inline` promises not to
block, and runs on the ending thread, which may be an event loop's. Without a deadline all hooks
run on the ending thread, unless that is an event loop's.

`observe` is called for whoever asks what an OS process holds (`ResourceOrchestrator.observe`,
`probate ps --held`), all kinds at once: a failure of one is raised. `reclaim` is called for what
stands in the journal of a host that has died: `probate.journal.Named` says what a kind notes
there; and for what a command that `probate run` has run has left, which `noticed` turns into
records.

The orchestrator calls each resource plugin on its own, so that one failure never ends a call
for all. Plugins that only wrap hooks (timing, audit, tracing) are observers: they take part in
every one of those calls.

docs/contract.md says what of this stays as it is, and how the rest may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, final, overload

import pluggy

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures
    from collections.abc import Callable, Iterable

    import psutil

    from probate.journal.notice import Notice
    from probate.models import CleanupStats, ResourceRecord, ResourceUsage
    from probate.ordering import Ordering
    from probate.outcome import Outcome, ResourceId

    #: What a `quiesce` may return to be waited for. An asyncio future belongs to its own loop.
    AnyFuture = concurrent.futures.Future[Any] | asyncio.Future[Any]

#: What pluggy knows the hooks, and the marks on them, by.
PROJECT: Final = "probate"

#: Entry-point group of resource plugins.
ENTRY_POINT_GROUP: Final = "probate.resources"

#: Hooks without which a plugin is no resource plugin.
REQUIRED_HOOKS: Final = ("ordering", "has_resources", "cleanup")

_hookspec = pluggy.HookspecMarker(PROJECT)

#: Marks a plugin's function as the implementation of the hook of the same name.
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


@final
class HookDeprecationWarning(DeprecationWarning):
    """Warns of the use of a hook, or of an argument of one, that will go.

    Stands in a hook's specification as `warn_on_impl`, or in its `warn_on_impl_args`, without
    `use`; plugins that use it get it once, when they are registered.
    """

    def __init__(self, since: str, gone_in: str, instead: str, use: str = "this") -> None:
        super().__init__(
            f"{use} is deprecated since probate {since}, and gone in {gone_in}: {instead}"
        )
        #: The versions of the core that deprecate it, and that will have it no more.
        self.since, self.gone_in = since, gone_in
        #: What to write in its place.
        self.instead = instead

    def used_as(self, use: str) -> HookDeprecationWarning:
        """Return the same, of one use of it."""
        return HookDeprecationWarning(self.since, self.gone_in, self.instead, use)


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
    """Mark a `cleanup` or `quiesce` that never blocks, so that it runs on the ending thread.

    Other hooks run on a hook thread, where one that hangs can be left behind; a mark saves the
    hand-over. It is a promise: a marked hook that hangs, hangs the termination. A hook that
    blocks for some resources only has `unless`, a method of the plugin that is asked, with the
    pid, before each call, and must not block either.
    """

    def mark(marked: _F) -> _F:
        setattr(marked, _INLINE_MARK, unless or _never)
        return marked

    return mark if function is None else mark(function)


def is_inline(function: object) -> bool:
    """Tell whether `function` is marked by `runs_inline` without an `unless`."""
    return getattr(function, _INLINE_MARK, None) is _never


def runs_inline_for(function: object, plugin: object, pid: int) -> bool:
    """Tell whether a bound hook of `plugin` is marked by `runs_inline`, and so for this pid."""
    unless: Callable[[Any, int], bool] | None = getattr(function, _INLINE_MARK, None)
    if unless is None or unless is _never:
        return unless is not None
    try:
        return not unless(plugin, pid)
    except Exception:
        # The hook itself is about to run into whatever is wrong, and is reported then.
        return False


def _never(_plugin: object, _pid: int) -> bool:
    return False


@_hookspec
def ordering() -> Ordering:  # type: ignore[empty-body]  # a specification has no body
    """Say where this kind stands in the cleanup order. Required; asked once, at registration."""


@_hookspec
def has_resources(pid: int) -> bool:  # type: ignore[empty-body]  # a specification has no body
    """Tell whether `pid` owns anything of this kind. Required.

    Must be O(1), and answered from the same table that `cleanup` empties.
    """


@_hookspec
def cleanup(pid: int) -> CleanupStats:  # type: ignore[empty-body]  # a specification has no body
    """Release all that `pid` owns of this kind, newest first. Required.

    One failure never keeps the next resource from being tried. It does not wait for users: what
    is still in use stays owned, is reported BUSY, and is tried again.
    """


@_hookspec
def quiesce(pid: int) -> Iterable[AnyFuture]:  # type: ignore[empty-body]  # a specification has no body
    """Ask the users of `pid`'s resources to stop; return futures that are done when they have.

    Must not block. All kinds are quiesced before any kind is cleaned.
    """


@_hookspec(firstresult=True)
def adopt(pid: int, resource: object) -> ResourceId | None:
    """Take responsibility for an object made elsewhere; return None if it is not of this kind."""


@_hookspec
def observe(process: psutil.Process) -> Iterable[ResourceRecord]:  # type: ignore[empty-body]  # a specification has no body
    """Tell what a live foreign OS process holds of this kind, as seen from outside.

    Each record has evidence "held", and is for reports: never a reason to delete. Raises
    psutil.NoSuchProcess or psutil.AccessDenied, or the OSError that means the same.
    """


@_hookspec
def reclaim(record: ResourceRecord, dry_run: bool) -> Outcome:  # type: ignore[empty-body]  # a specification has no body
    """Release a named thing whose owner has died, from its record alone.

    It is told from others by what the record says of it, compared when it is acted on, never by
    its name alone; `probate.journal` has what that takes for paths. A record in state "intent" has
    but what was known before the thing was made; its identity has, as "boot", which boot of the
    machine it was made in. A dry run does all but the release itself. A
    ReleaseError says why something is left; what is still in use is REFUSED. Called in a process
    that owns nothing, when the host is dead, and with a deadline.
    """


@_hookspec
def usage(pid: int) -> ResourceUsage:  # type: ignore[empty-body]  # a specification has no body
    """Tell how many resources `pid` owns, of how many bytes, and describe each.

    If it is absent, the tables answer.
    """


@_hookspec(firstresult=True)
def noticed(notice: Notice) -> ResourceRecord | None:
    """Tell what a program that knows nothing of Probate makes; return None if not of this kind.

    The kernel has said, before the thing was made, who is about to make it and under which name;
    `notice.record` makes a record of it, which `reclaim` gets when the program has ended. What only
    may be of this kind is not claimed. Called in a process that owns nothing, and not while the
    program waits.
    """
