"""ResourceKind: a kind made of a table, a place in the order, and at most a few functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probate.hookspecs import hookimpl, is_inline, runs_inline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psutil

    from probate.hookspecs import AnyFuture
    from probate.journal.notice import Notice
    from probate.models import CleanupStats, ResourceRecord, ResourceUsage
    from probate.ordering import Ordering
    from probate.outcome import Outcome, ResourceId
    from probate.ownership.table import OwnershipTable


class ResourceKind:
    """Implements the hooks of `probate.hookspecs` for one kind of resource.

    `table` keeps the resources and knows how each is released; `ordering` is the kind's place in
    the cleanup order; the functions implement the hooks of the same name. `may_block` says
    whether a cleanup may block: False promises that it never does, so that it runs inline and not
    on a thread that can be left behind; a function is asked, with the pid, before each cleanup.
    A `quiesce` marked with `probate.runs_inline` promises the same for itself.

    An entry point names a function or class that makes a new one at each call. Raises ValueError
    if neither the table has a release function nor the kind a `cleanup`, or if the release is a
    coroutine function and is said never to block.
    """

    def __init__(
        self,
        table: OwnershipTable[Any],
        ordering: Ordering,
        *,
        quiesce: Callable[[int], Iterable[AnyFuture] | None] | None = None,
        adopt: Callable[[int, object], ResourceId | None] | None = None,
        cleanup: Callable[[int], CleanupStats] | None = None,
        usage: Callable[[int], ResourceUsage] | None = None,
        observe: Callable[[psutil.Process], Iterable[ResourceRecord]] | None = None,
        reclaim: Callable[[ResourceRecord, bool], Outcome] | None = None,
        noticed: Callable[[Notice], ResourceRecord | None] | None = None,
        may_block: bool | Callable[[int], bool] = True,
    ) -> None:
        if cleanup is None and table.releaser.function is None:
            raise ValueError(
                f"table {table.kind!r} has no release function: give it one, as in "
                "OwnershipTable(kind, release), or give the kind a cleanup"
            )
        if table.releaser.is_async and may_block is False:
            raise ValueError(f"table {table.kind!r} releases by a coroutine function, which blocks")
        #: Who owns what.
        self.table = table
        self._ordering = ordering
        # Not as attributes: pluggy would take one that is marked for another hook.
        self._functions: dict[str, Callable[..., Any] | None] = {
            "quiesce": quiesce,
            "adopt": adopt,
            "cleanup": cleanup or table.cleanup,
            "usage": usage or table.usage,
            "observe": observe,
            "reclaim": reclaim,
            "noticed": noticed,
        }
        self._may_block = may_block

    def implements(self, hook: str) -> bool:
        """Tell whether a hook does anything."""
        return hook not in self._functions or self.written_for(hook) is not None

    def written_for(self, hook: str) -> Callable[..., Any] | None:
        """Return what does the work of a hook: a subclass's method, or the function given."""
        if getattr(type(self), hook) is not getattr(ResourceKind, hook):
            method: Callable[..., Any] = getattr(self, hook)
            return method
        return self._functions.get(hook)

    def _cleanup_may_block(self, pid: int) -> bool:
        may_block = self._may_block
        return may_block if isinstance(may_block, bool) else may_block(pid)

    def _quiesce_may_block(self, _pid: int) -> bool:
        return not is_inline(self._functions["quiesce"])

    @hookimpl
    def ordering(self) -> Ordering:
        """Return the kind's place in the cleanup order."""
        return self._ordering

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        """Tell whether `pid` owns anything, as the table knows."""
        return pid in self.table

    @hookimpl
    @runs_inline(unless=_cleanup_may_block)
    def cleanup(self, pid: int) -> CleanupStats:
        """Release all that `pid` owns, newest first."""
        return self._call("cleanup", pid)  # type: ignore[no-any-return]  # as it was given

    @hookimpl
    @runs_inline(unless=_quiesce_may_block)
    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        """Ask the users of its resources to stop."""
        return self._call("quiesce", pid) or []

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        """Take responsibility for an object made elsewhere, if it is of this kind."""
        return self._call("adopt", pid, resource)  # type: ignore[no-any-return]  # as it was given

    @hookimpl
    def usage(self, pid: int) -> ResourceUsage:
        """Describe what `pid` owns."""
        return self._call("usage", pid)  # type: ignore[no-any-return]  # as it was given

    @hookimpl
    def observe(self, process: psutil.Process) -> Iterable[ResourceRecord]:
        """Tell what a live foreign OS process holds of this kind."""
        return self._call("observe", process) or ()

    @hookimpl
    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        """Release a named thing whose owner has died."""
        return self._call("reclaim", record, dry_run)  # type: ignore[no-any-return]  # as it was given

    @hookimpl
    def noticed(self, notice: Notice) -> ResourceRecord | None:
        """Tell what a supervised program is about to make, if it is of this kind."""
        return self._call("noticed", notice)  # type: ignore[no-any-return]  # as it was given

    def _call(self, hook: str, *args: object) -> Any:
        function = self._functions[hook]
        return None if function is None else function(*args)
