"""Finding plugins: entry points in, plugin classes and records out.

What is found, disabled, duplicate or incompatible is told from metadata alone, before anything
is imported. stevedore does the loading, of one chosen entry point at a time; its cache, which
can hide an entry point that changed in place, is not consulted.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any, NamedTuple, final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from stevedore import NamedExtensionManager

from probate.hookspecs import ENTRY_POINT_GROUP
from probate.models import PluginRecord, PluginStatus
from probate.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from stevedore.extension import Extension


@final
class Found(NamedTuple):
    """One entry point, told from metadata."""

    kind: str
    distribution: str
    version: str
    entry_point: importlib.metadata.EntryPoint
    #: The requirement on the core that this core does not meet; empty if it does.
    unmet: str

    def record(
        self, status: PluginStatus, reason: str = "", priority: int | None = None
    ) -> PluginRecord:
        """The record of what became of it."""
        return PluginRecord(
            kind=self.kind,
            distribution=self.distribution,
            version=self.version,
            priority=priority,
            status=status,
            reason=reason,
        )


def scan() -> list[Found]:
    """Find all resource entry points, by kind, then distribution. Imports none of them.

    Of a distribution that is on the path twice, the first counts, as for `import`.
    """
    seen: set[str] = set()
    found: list[Found] = []
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name is None or (key := canonicalize_name(name)) in seen:
            continue
        seen.add(key)
        entry_points = distribution.entry_points.select(group=ENTRY_POINT_GROUP)
        if not entry_points:
            continue
        unmet = _unmet_requirement(distribution)
        found.extend(Found(ep.name, key, distribution.version, ep, unmet) for ep in entry_points)
    return sorted(found, key=lambda each: (each.kind, each.distribution))


def choose(
    found: Collection[Found], only: Collection[str] | None, disable: Collection[str]
) -> Iterator[Found | PluginRecord]:
    """Say which entry points to load; of the others, give the record."""
    chosen: dict[str, Found] = {}
    # The distribution that is named for the kind has the first claim, then the alphabet decides.
    for each in sorted(found, key=lambda each: each.distribution != f"probate-{each.kind}"):
        if each.kind in disable:
            yield each.record(PluginStatus.DISABLED, "disabled by name")
        elif only is not None and each.kind not in only:
            yield each.record(PluginStatus.DISABLED, "not among the kinds asked for")
        elif each.unmet:
            reason = (
                f"asks for {each.unmet}, and this is probate {__version__}; upgrade one of them"
            )
            yield each.record(PluginStatus.INCOMPATIBLE, reason)
        elif (first := chosen.setdefault(each.kind, each)) is each:
            yield each
        else:
            reason = f"{first.distribution} serves this kind too; uninstall one of them"
            yield each.record(PluginStatus.DUPLICATE, reason)


def load(found: Found) -> Any:
    """Import the plugin's class and call it.

    Raises whatever the import or the constructor raises, SystemExit included.
    """
    failures: list[BaseException] = []

    def on_failure(_manager: object, _entry_point: object, error: BaseException) -> None:
        failures.append(error)

    manager = _OneEntryPoint(found.entry_point, on_failure)
    if failures:
        raise failures[0]
    extension: Extension[Any] = manager[found.kind]
    return extension.plugin()


class _OneEntryPoint(NamedExtensionManager[Any]):
    """Loads exactly the entry point that it is given."""

    def __init__(self, entry_point: importlib.metadata.EntryPoint, on_failure: Any) -> None:
        self._entry_point = entry_point
        super().__init__(
            ENTRY_POINT_GROUP,
            [entry_point.name],
            on_load_failure_callback=on_failure,
            on_missing_entrypoints_callback=None,
        )

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        return [self._entry_point]


def _unmet_requirement(distribution: importlib.metadata.Distribution) -> str:
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if canonicalize_name(requirement.name) != "probate":
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(__version__, prereleases=True):
            return str(requirement)
    return ""
