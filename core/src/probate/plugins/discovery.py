"""Finding plugins: entry points in, registered plugins out, and what became of each.

What is found, disabled, duplicate or incompatible is told from metadata alone, before anything
is imported. stevedore does the loading, of one chosen entry point at a time; its cache, which
can hide an entry point that changed in place, is not consulted.
"""

from __future__ import annotations

import email
import importlib.metadata
from typing import TYPE_CHECKING, Any, NamedTuple, final

from stevedore import NamedExtensionManager

from probate.errors import UnknownKindError
from probate.hookspecs import ENTRY_POINT_GROUP
from probate.outcome import PluginStatus
from probate.plugins.requirement import canonical_name, unmet
from probate.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from email.message import Message

    from stevedore.extension import Extension

    from probate.models import PluginRecord
    from probate.plugins.registered import RegisteredKind
    from probate.plugins.registry import PluginRegistry


@final
class DiscoveredPlugin(NamedTuple):
    """One entry point, and what became of it: field by field what a `PluginRecord` says."""

    kind: str
    distribution: str
    version: str
    priority: int | None
    status: PluginStatus
    reason: str

    def record(self) -> PluginRecord:
        """The same, as it crosses the border."""
        from probate.models import PluginRecord

        return PluginRecord(**self._asdict())


@final
class Found(NamedTuple):
    """One entry point, told from metadata."""

    kind: str
    distribution: str
    version: str
    entry_point: importlib.metadata.EntryPoint
    #: The requirement on the core that this core does not meet; empty if it does.
    unmet: str

    def became(
        self, status: PluginStatus, reason: str = "", priority: int | None = None
    ) -> DiscoveredPlugin:
        """What became of it."""
        return DiscoveredPlugin(
            self.kind, self.distribution, self.version, priority, status, reason
        )


def discover(
    registry: PluginRegistry,
    only: Collection[str] | None = None,
    disable: Collection[str] = (),
    priorities: Mapping[str, int] | None = None,
) -> list[DiscoveredPlugin]:
    """Load the installed plugins, and register those that can be used, all at once.

    Raises TypeError for a bare string, UnknownKindError if a kind in `only` is not installed;
    nothing is loaded then.
    """
    for name, kinds in (("only", only), ("disable", disable)):
        if isinstance(kinds, str):
            raise TypeError(f"{name} must be a collection of kinds, got the string {kinds!r}")
    found = scan()
    installed = {each.kind for each in found}
    for kind in only or ():
        if kind not in installed:
            raise UnknownKindError(kind, sorted(installed))

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
                # First: another's misspelling must not look like this one's.
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
    return discovered


def in_order(found: Iterable[DiscoveredPlugin], kinds: Sequence[str]) -> list[DiscoveredPlugin]:
    """Loaded kinds as they stand in `kinds`, the cleanup order; then the others."""
    place = {kind: index for index, kind in enumerate(kinds)}
    last = len(place)

    def rank(each: DiscoveredPlugin) -> tuple[int, str, str]:
        is_loaded = each.status is PluginStatus.LOADED
        return place.get(each.kind, last) if is_loaded else last, each.kind, each.distribution

    return sorted(found, key=rank)


def scan() -> list[Found]:
    """Find all resource entry points, by kind, then distribution. Imports none of them.

    Of a distribution that is on the path twice, the first counts, as for `import`.
    """
    found: dict[str, list[Found]] = {}
    for distribution in importlib.metadata.distributions():
        # Most have no entry points of ours, and then nothing more of them is read.
        if ENTRY_POINT_GROUP not in (distribution.read_text("entry_points.txt") or ""):
            continue
        name = _metadata_of(distribution)["Name"]
        if name is None or (key := canonical_name(name)) in found:
            continue
        found[key] = _found_in(key, _first(name, distribution))
    return sorted(
        (each for founds in found.values() for each in founds),
        key=lambda each: (each.kind, each.distribution),
    )


def choose(
    found: Collection[Found], only: Collection[str] | None, disable: Collection[str]
) -> Iterator[Found | DiscoveredPlugin]:
    """Say which entry points to load; of the others, what becomes of them."""
    chosen: dict[str, Found] = {}
    # The distribution that is named for the kind has the first claim, then the alphabet decides.
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


def _first(
    name: str, distribution: importlib.metadata.Distribution
) -> importlib.metadata.Distribution:
    """The first distribution of this name on the path, which may have no entry points of ours."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        # Its folder has another name than its metadata tell.
        return distribution


def _metadata_of(distribution: importlib.metadata.Distribution) -> Message:
    """The fields of its metadata; the README below them, most of the file, is not parsed."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    return email.message_from_string(text.partition("\n\n")[0])


def _found_in(name: str, distribution: importlib.metadata.Distribution) -> list[Found]:
    metadata = _metadata_of(distribution)
    requires = metadata.get_all("Requires-Dist") or distribution.requires or ()
    lacks = unmet(requires, __version__)
    return [
        Found(entry_point.name, name, metadata["Version"], entry_point, lacks)
        for entry_point in distribution.entry_points.select(group=ENTRY_POINT_GROUP)
    ]


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
