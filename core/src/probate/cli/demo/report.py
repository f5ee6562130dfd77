"""What the demo tells, as a value: JSON for machines; printing.py has it for people."""

from __future__ import annotations

from typing import final

from pydantic import BaseModel, ConfigDict, Field, computed_field

from probate.models import CleanupResult, CleanupStats, PluginRecord


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


@final
class KindReport(_Frozen):
    """What a process held of one kind when it ended, and what became of it."""

    held: int = 0
    freed: int = 0
    nbytes: int = 0
    #: Seconds in all calls of the kind's cleanup.
    seconds: float = 0.0
    #: More than one where something was busy at first.
    calls: int = 0


@final
class EndedProcess(_Frozen):
    """A process of the demo, from what it did to its account."""

    pid: int
    name: str
    #: In a word, such as "exception".
    ended_by: str
    #: The same in a sentence, without its subject.
    end: str
    returncode: int | None
    #: What it did with each kind, or why it could not.
    scenes: dict[str, list[str]]
    #: All kinds, in cleanup order.
    kinds: dict[str, KindReport]
    result: CleanupResult


@final
class DeadHost(_Frozen):
    """What became of what a host had left that was killed."""

    #: Who gave it back.
    settler: str
    #: Seconds until all was given back: from its death, or from the start of the sweep.
    seconds: float
    #: How many things were given back, by kind.
    kinds: dict[str, int]
    #: The keys of the processes that it had.
    owners: tuple[str, ...]
    #: What was kept, and what the kernel still shows, a line each.
    differences: tuple[str, ...]


@final
class KernelReport(_Frozen):
    """What the kernel showed before, and what is otherwise after."""

    fds: int
    sockets: int
    shared_maps: int
    threads: int
    #: Files whose content was looked at.
    files: int
    differences: tuple[str, ...]


@final
class DemoReport(_Frozen):
    """The whole demo. Without any kind installed there are no processes, and no kernel's view."""

    plugins: tuple[PluginRecord, ...]
    processes: tuple[EndedProcess, ...] = ()
    #: What could not be shown here, and what went wrong aside, with the reasons.
    remarks: tuple[str, ...] = ()
    totals: CleanupStats = CleanupStats()
    dead_hosts: tuple[DeadHost, ...] = ()
    kernel: KernelReport | None = None
    #: Whether nothing was left out but what this system does not have; the remarks say so, too.
    is_complete: bool = Field(default=True, exclude=True)

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own idiom; mypy has no support
    @property
    def is_success(self) -> bool:
        """Whether all was shown that can be, all of it came free, and the kernel agrees."""
        if self.kernel is None or self.kernel.differences or not self.is_complete:
            return False
        return all(each.result.is_success for each in self.processes)
