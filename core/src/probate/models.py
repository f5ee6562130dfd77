"""What goes in and comes out: accounts, records, limits. Frozen pydantic models, JSON both ways.

Inside, plain structures do the work; these are made once for each kind and termination.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar, final

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, computed_field

from probate.ordering import Ordering
from probate.outcome import Outcome, PluginStatus

__all__ = [
    "CleanupFailure",
    "CleanupResult",
    "CleanupStats",
    "KindLimits",
    "Leak",
    "Ordering",
    "OsUsage",
    "Outcome",
    "PluginRecord",
    "PluginStatus",
    "ProcessInfo",
    "ProcessState",
    "ResourceInfo",
    "ResourceLimits",
    "ResourceRecord",
    "ResourceUsage",
]

Seconds = Annotated[float, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)

    #: The names of all fields, as `trusted` needs them.
    all_fields: ClassVar[set[str]]

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.all_fields = set(cls.model_fields)


M = TypeVar("M", bound=_Frozen)


def trusted(model: type[M], values: dict[str, Any]) -> M:
    """Make a model of values for all of its fields, without checking them.

    It is what `model(**values)` would be, in a fraction of the time: for accounts that are made
    at each termination. `model_construct`, which looks for defaults and aliases, takes longer.
    """
    made = _new(model)
    # A frozen model sets nothing by itself; these four are what an instance is made of.
    _set(made, "__dict__", values)
    _set(made, "__pydantic_fields_set__", model.all_fields)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made


_new: Final = object.__new__
_set: Final = object.__setattr__


# -- accounts ----------------------------------------------------------------


@final
class CleanupFailure(_Frozen):
    """Names one thing that did not come free, and says why."""

    kind: str
    #: A description of the resource, or of the hook that failed.
    resource: str
    outcome: Outcome
    message: str

    def __str__(self) -> str:
        text = f"{self.kind}: {self.resource}: {self.outcome}: {self.message}"
        return " ".join(text.split())


@final
class CleanupStats(_Frozen):
    """Counts what a cleanup did; `a + b` adds two of them.

    It counts what was done, never what was meant: only a RELEASED resource is freed.
    """

    resources_freed: NonNegativeInt = 0
    bytes_freed: NonNegativeInt = 0
    errors_encountered: NonNegativeInt = 0
    #: Seconds of wall-clock time, which are added as well. 0 if there was nothing to release.
    duration_seconds: Seconds = 0.0
    #: Freed resources by kind; kinds that freed nothing are left out.
    by_type: Mapping[str, NonNegativeInt] = Field(default_factory=dict)
    #: The errors one by one, as far as a plugin's cleanup tells them. In a finished account they
    #: are in `CleanupResult.errors` instead, so that sums do not grow.
    errors: tuple[CleanupFailure, ...] = ()

    def __add__(self, other: object) -> CleanupStats:
        if not isinstance(other, CleanupStats):
            return NotImplemented
        by_type = dict(self.by_type)
        for kind, freed in other.by_type.items():
            by_type[kind] = by_type.get(kind, 0) + freed
        return CleanupStats(
            resources_freed=self.resources_freed + other.resources_freed,
            bytes_freed=self.bytes_freed + other.bytes_freed,
            errors_encountered=self.errors_encountered + other.errors_encountered,
            duration_seconds=self.duration_seconds + other.duration_seconds,
            by_type=by_type,
            errors=self.errors + other.errors,
        )

    @classmethod
    def merged(cls, parts: Iterable[CleanupStats]) -> CleanupStats:
        """Add up `parts`; the sum of none is empty."""
        return sum(parts, start=cls())


#: The account of a cleanup that found nothing.
NOTHING: Final = CleanupStats()


@final
class ResourceInfo(_Frozen):
    """Describes one owned resource, for people."""

    id: int
    description: str
    nbytes: NonNegativeInt = 0
    #: The stack at acquisition, innermost call last, when acquisition sites are kept.
    acquired_at: str | None = None


@final
class OsUsage(_Frozen):
    """Counts what OS processes use at one moment, all taken together, as the kernel counts it."""

    processes: NonNegativeInt = 0
    threads: NonNegativeInt = 0
    #: Open descriptors.
    fds: NonNegativeInt = 0
    #: Resident bytes; what several share counts for each.
    rss: NonNegativeInt = 0
    #: Seconds of processor time since their start, user and system.
    cpu: Seconds = 0.0


@final
class ResourceUsage(_Frozen):
    """Counts and describes what one process owns of one kind."""

    kind: str
    count: NonNegativeInt = 0
    nbytes: NonNegativeInt = 0
    resources: tuple[ResourceInfo, ...] = ()
    #: What the OS processes among the resources use; None for kinds that own none.
    os: OsUsage | None = None


@final
class Leak(_Frozen):
    """Names a resource that a process still owned when it ended normally."""

    kind: str
    resource: ResourceInfo

    def __str__(self) -> str:
        site = f"; acquired at\n{self.resource.acquired_at}" if self.resource.acquired_at else ""
        return f"{self.kind}: {self.resource.description} was never released{site}"


@final
class CleanupResult(_Frozen):
    """Accounts for one termination: what came free, what did not, what was leaked."""

    pid: int
    stats: CleanupStats = NOTHING
    #: All that did not come free, in cleanup order.
    errors: tuple[CleanupFailure, ...] = ()
    #: What a process that ended normally had not released itself; it was released all the same.
    leaks: tuple[Leak, ...] = ()
    #: What is no failure, and should be known: what stays, or what could not be told.
    notes: tuple[str, ...] = ()
    #: The sum of the accounts of all that it owned, all the way down, and that ended with it.
    children: CleanupStats = NOTHING

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own idiom; mypy has no support
    @property
    def total(self) -> CleanupStats:
        """Return the sum of its own account and of those of its children."""
        return self.stats if self.children is NOTHING else self.stats + self.children

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own idiom; mypy has no support
    @property
    def is_success(self) -> bool:
        """Tell whether everything came free."""
        return self.stats.errors_encountered == 0

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own idiom; mypy has no support
    @property
    def has_freed_resources(self) -> bool:
        """Tell whether anything was freed."""
        return self.stats.resources_freed > 0

    def __str__(self) -> str:
        stats = self.stats
        return (
            f"PID {self.pid} cleanup: {stats.resources_freed} resources freed, "
            f"{stats.bytes_freed} bytes freed, {stats.errors_encountered} errors"
        )


def account_of(
    pid: int,
    *,
    by_type: dict[str, int],
    nbytes: int,
    seconds: float,
    errors: tuple[CleanupFailure, ...],
    leaks: tuple[Leak, ...],
    notes: tuple[str, ...] = (),
) -> CleanupResult:
    """Make the account of a termination that took so many seconds."""
    stats = {
        "resources_freed": sum(by_type.values()),
        "bytes_freed": nbytes,
        "errors_encountered": len(errors),
        "duration_seconds": seconds,
        "by_type": by_type,
        "errors": (),
    }
    values = {
        "pid": pid,
        "stats": trusted(CleanupStats, stats),
        "errors": errors,
        "leaks": leaks,
        "notes": notes,
        "children": NOTHING,
    }
    return trusted(CleanupResult, values)


# -- records -----------------------------------------------------------------


@final
class ResourceRecord(_Frozen):
    """Describes a thing that an OS process holds, or held, so that another one can find it.

    `identity` is what the kind needs to recognise it without trusting a bare name: path,
    device and inode; SysV id and creation time; and so on. JSON values only.
    """

    kind: str
    description: str
    os_pid: int
    nbytes: NonNegativeInt = 0
    identity: Mapping[str, Any] = Field(default_factory=dict)
    #: Whether it was only about to be made when its owner died.
    state: Literal["intent", "confirmed"] = "confirmed"
    #: How it is known whose it is: made by a kind; noticed by the kernel as it was made; seen to be
    #: held; or by its name alone. Only on the first two is anything removed.
    evidence: Literal["made", "notified", "held", "name"] = "made"
    #: Whether it may be what a program was run for, so that it goes only if that did not end well.
    holds_data: bool = False

    @classmethod
    def held(
        cls, kind: str, description: str, os_pid: int, nbytes: int = 0, **identity: Any
    ) -> Self:
        """Describe what an OS process was seen to hold, which proves nothing of whose it is."""
        return cls(
            kind=kind,
            description=description,
            os_pid=os_pid,
            nbytes=nbytes,
            identity=identity,
            evidence="held",
        )


@final
class PluginRecord(_Frozen):
    """Says what became of one entry point of group `probate.resources`."""

    kind: str
    distribution: str
    version: str
    #: None unless loaded.
    priority: int | None = None
    status: PluginStatus
    #: Why it is not loaded, and what to do; empty when it is.
    reason: str = ""


class ProcessState(StrEnum):
    """Says how far a process has come; it goes from each state to the next, and never back."""

    RUNNING = "running"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


@final
class ProcessInfo(_Frozen):
    """Describes a process at one moment."""

    pid: int
    name: str
    state: ProcessState
    parent: int | None = None
    #: Seconds since the epoch.
    created_at: float
    #: Of the OS process behind it; None if there is none.
    os_pid: int | None = None
    #: How the OS process ended, as subprocess puts it: -9 is death by signal 9. None while it
    #: runs, or if nobody can tell.
    returncode: int | None = None


# -- limits ------------------------------------------------------------------


@final
class KindLimits(_Frozen):
    """Limits how much of one kind one process may own at a time; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_count: NonNegativeInt | None = None
    max_bytes: NonNegativeInt | None = None


@final
class ResourceLimits(_Frozen):
    """Limits how much a process may own of each kind; `by_kind` overrides the general limits.

    A kind that is neither installed nor registered is refused where the limits are given; one that
    is disabled is not, and its limits hold: nothing of it can be acquired.

    `cpu`, `memory` and `pids` hold for the OS processes that are spawned for it, and are the
    kernel's to enforce; they do not count what the host holds for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_count: NonNegativeInt | None = None
    max_bytes: NonNegativeInt | None = None
    by_kind: Mapping[str, KindLimits] = Field(default_factory=dict)
    #: Seconds of processor time for each OS process (RLIMIT_CPU, getrlimit(2)).
    cpu: PositiveInt | None = None
    #: Bytes: of the whole tree where a cgroup v2 memory controller can be used, else of address
    #: space for each OS process (RLIMIT_AS).
    memory: PositiveInt | None = None
    #: OS processes and threads: in the tree where a cgroup v2 pids controller can be used, else
    #: of the same user (RLIMIT_NPROC, which does not bind root).
    pids: PositiveInt | None = None

    @cached_property
    def general(self) -> KindLimits:
        """Return the limits of kinds that have none of their own."""
        return KindLimits(max_count=self.max_count, max_bytes=self.max_bytes)

    def of(self, kind: str) -> KindLimits:
        """Return the limits of `kind`: its own, or else the general ones."""
        return self.by_kind.get(kind) or self.general


def nothing_of(pid: int) -> CleanupResult:
    """Make the account of a process that owned nothing, in next to no time."""
    values = {
        "pid": pid,
        "stats": NOTHING,
        "errors": (),
        "leaks": (),
        "notes": (),
        "children": NOTHING,
    }
    return trusted(CleanupResult, values)
