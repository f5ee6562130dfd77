"""Finds the installed plugins, loads and registers them, and records what became of each.

What is disabled, duplicate or incompatible is decided from metadata alone, before anything is
imported. stevedore loads one chosen entry point at a time; its cache, which can hide an entry
point that was changed in place, is not used.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, final

from stevedore import NamedExtensionManager

from probate.errors import UnknownKindError
from probate.hookspecs import ENTRY_POINT_GROUP
from probate.outcome import PluginStatus
from probate.plugins.discovered import DiscoveredPlugin
from probate.plugins.requirement import canonical_name, unmet
from probate.system.log import logger
from probate.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from stevedore.extension import Extension

    from probate.plugins.registered import RegisteredKind
    from probate.plugins.registry import PluginRegistry

#: What nobody has asked for, and a program may go without unawares.
_LOGGED: Final = frozenset({PluginStatus.FAILED, PluginStatus.INCOMPATIBLE})


@final
class Found(NamedTuple):
    """One entry point, as its metadata describe it."""

    kind: str
    distribution: str
    version: str
    entry_point: importlib.metadata.EntryPoint
    #: The requirement that this core does not meet; empty if there is none.
    unmet: str

    def became(
        self, status: PluginStatus, reason: str = "", priority: int | None = None
    ) -> DiscoveredPlugin:
        """Say what became of it."""
        return DiscoveredPlugin(*self[:3], priority, status, reason)


def discover(
    registry: PluginRegistry,
    only: Collection[str] | None = None,
    disable: Collection[str] = (),
    priorities: Mapping[str, int] | None = None,
) -> list[DiscoveredPlugin]:
    """Load the installed plugins, and register those that can be used, all at once.

    The registry keeps what became of each. Raises TypeError for a bare string, UnknownKindError
    for a kind that is neither installed nor, unless it is in `only`, registered; nothing is loaded
    then.
    """
    for name, kinds in (("only", only), ("disable", disable)):
        if isinstance(kinds, str):
            raise TypeError(f"{name} must be a collection of kinds, got the string {kinds!r}")
    found = scan()
    installed = {each.kind for each in found}
    _check_known(only or (), installed, "asked for in only")
    there = installed.union(registry.order())
    _check_known(disable, there, "named in disable")
    _check_known(priorities or (), there, "named in priorities")

    discovered: list[DiscoveredPlugin] = []
    usable: list[tuple[Found, RegisteredKind]] = []
    for each in choose(found, only, disable):
        if isinstance(each, DiscoveredPlugin):
            discovered.append(each)
        elif registry.get(each.kind) is not None:
            discovered.append(
                each.became(PluginStatus.DUPLICATE, "this kind was registered before")
            )
        else:
            try:
                # First, so that another's misspelt hook is not blamed on this one.
                registry.check_pending()
                examined = registry.examine(
                    load(each), each.kind, (priorities or {}).get(each.kind)
                )
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                discovered.append(each.became(PluginStatus.FAILED, _reason(error)))
            else:
                if examined is None:
                    discovered.append(each.became(PluginStatus.LOADED))
                else:
                    usable.append((each, examined))
    refused = registry.add([examined for _, examined in usable])
    for each, examined in usable:
        if each.kind in refused:
            discovered.append(each.became(PluginStatus.FAILED, _reason(refused[each.kind])))
        else:
            priority = examined.ordering.priority
            discovered.append(each.became(PluginStatus.LOADED, priority=priority))
    registry.discovered = discovered
    for plugin in discovered:
        if plugin.status in _LOGGED:
            logger.warning(
                "kind %r of %s is %s: %s",
                plugin.kind, plugin.distribution, plugin.status, plugin.reason,
            )  # fmt: skip
    return discovered


def installed(only: Collection[str] | None = None) -> PluginRegistry:
    """Load the installed kinds, or those of `only` that are, for who gives back by records alone.

    Nobody acquires anything by them: what a termination needs beside them is not loaded.
    """
    from probate.ownership.admission import Admission
    from probate.plugins.registry import PluginRegistry

    registry = PluginRegistry(Admission())
    there = None if only is None else {each.kind for each in scan()}.intersection(only)
    discover(registry, there)
    return registry


def _check_known(kinds: Iterable[str], there: Collection[str], where: str) -> None:
    for kind in kinds:
        if kind not in there:
            raise UnknownKindError(kind, sorted(there), where=where)


def in_order(found: Iterable[DiscoveredPlugin], kinds: Sequence[str]) -> list[DiscoveredPlugin]:
    """Sort loaded kinds as in `kinds`, the cleanup order; then the others, by name."""
    place = {kind: index for index, kind in enumerate(kinds)}
    last = len(place)

    def rank(each: DiscoveredPlugin) -> tuple[int, str, str]:
        is_loaded = each.status is PluginStatus.LOADED
        return place.get(each.kind, last) if is_loaded else last, each.kind, each.distribution

    return sorted(found, key=rank)


def scan() -> list[Found]:
    """Find all resource entry points, by kind, then distribution. Imports none of them.

    Of a distribution that is on the path twice the first counts, as for `import`.
    """
    found: dict[str, list[Found]] = {}
    for distribution in importlib.metadata.distributions():
        # Most have no entry points of ours: no more is read of them.
        if ENTRY_POINT_GROUP not in (distribution.read_text("entry_points.txt") or ""):
            continue
        for name in _metadata_of(distribution).get("name", ()):
            if (key := canonical_name(name)) not in found:
                found[key] = _found_in(key, _first(name, distribution))
    return sorted(
        (each for founds in found.values() for each in founds),
        key=lambda each: (each.kind, each.distribution),
    )


def kinds_of_the_core() -> dict[str, str]:
    """Return the kinds that `probate[all]` installs, each with its distribution."""
    lines = importlib.metadata.requires("probate") or ()
    found = (re.match(r"probate-([\w-]+)", line) for line in lines)
    return {match[1]: match[0] for match in found if match}


def choose(
    found: Collection[Found], only: Collection[str] | None, disable: Collection[str]
) -> Iterator[Found | DiscoveredPlugin]:
    """Yield each entry point that is to be loaded; of the others, what became of them."""
    chosen: dict[str, Found] = {}
    # First the distribution that is named for the kind, then by the alphabet.
    for each in sorted(found, key=lambda each: each.distribution != f"probate-{each.kind}"):
        if each.kind in disable:
            yield each.became(PluginStatus.DISABLED, "disabled by name")
        elif only is not None and each.kind not in only:
            yield each.became(PluginStatus.DISABLED, "not among the kinds asked for")
        elif each.unmet:
            reason = (
                f"asks for {each.unmet}, and this is probate {__version__}; upgrade one of them"
            )
            yield each.became(PluginStatus.INCOMPATIBLE, reason)
        elif (first := chosen.setdefault(each.kind, each)) is each:
            yield each
        else:
            reason = f"{first.distribution} serves this kind too; uninstall one of them"
            yield each.became(PluginStatus.DUPLICATE, reason)


def load(found: Found) -> Any:
    """Import the plugin's class or function, and call it.

    Raises whatever the import or the call raises, SystemExit included.
    """
    extension: Extension[Any] = _OneEntryPoint(found.entry_point)[found.kind]
    return extension.plugin()


def _raise(_manager: object, _entry_point: object, error: BaseException) -> NoReturn:
    raise error


class _OneEntryPoint(NamedExtensionManager[Any]):
    """Loads exactly the entry point that it is given."""

    def __init__(self, entry_point: importlib.metadata.EntryPoint) -> None:
        self._entry_point = entry_point
        super().__init__(ENTRY_POINT_GROUP, [entry_point.name], on_load_failure_callback=_raise)

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        return [self._entry_point]


def _first(
    name: str, distribution: importlib.metadata.Distribution
) -> importlib.metadata.Distribution:
    """Return the first distribution of this name on the path, with or without entry points."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        # Its folder has another name than its metadata.
        return distribution


def _metadata_of(distribution: importlib.metadata.Distribution) -> dict[str, list[str]]:
    """Read the fields of its metadata, by name in lower case; not the README below them.

    As `email` reads them, which takes as long as to import three of the kinds.
    """
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    fields: dict[str, list[str]] = {}
    # A field goes on in lines that begin with a blank.
    head = text.partition("\n\n")[0].replace("\n ", " ").replace("\n\t", " ")
    for line in head.split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name.lower(), []).append(value.strip())
    return fields


def _found_in(name: str, distribution: importlib.metadata.Distribution) -> list[Found]:
    metadata = _metadata_of(distribution)
    lacks = unmet(metadata.get("requires-dist") or distribution.requires or (), __version__)
    [version, *_] = metadata.get("version", [""])
    return [
        Found(entry_point.name, name, version, entry_point, lacks)
        for entry_point in distribution.entry_points.select(group=ENTRY_POINT_GROUP)
    ]


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
