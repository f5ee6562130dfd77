"""What becomes of installed plugins, good and bad; decided from metadata before any import."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from distributions import PLUGIN, install

from probate import (
    MissingKindWarning,
    PluginStatus,
    ResourceOrchestrator,
    UnadoptableError,
    UnknownKindError,
    __version__,
)

if TYPE_CHECKING:
    from pathlib import Path

    from probate import PluginRecord

BROKEN = {
    "raises at import": ("raise ZeroDivisionError('at import')", "ZeroDivisionError: at import"),
    "asserts at import": ("assert False, 'no'", "AssertionError: no"),
    "exits at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "lacks a module": ("import no_such_module_here", "no_such_module_here"),
    "lacks the class": ("", "Resource"),
    "raises in its constructor": (
        "class Resource:\n    def __init__(self): raise OSError('no disk')",
        "OSError: no disk",
    ),
    "wants arguments": ("class Resource:\n    def __init__(self, wanted): ...", "wanted"),
    "lacks hooks": ("class Resource: ...", "lacks the required hook ordering(), has_resources()"),
    "misspells a hook": (
        PLUGIN.format(kind="broken", priority=1).replace("def cleanup", "def cleanpu"),
        "did you mean 'cleanup'",
    ),
    "jumps the queue": (
        PLUGIN.format(kind="broken", priority=1).replace(
            "hookimpl\n    def cl", "hookimpl(tryfirst=True)\n    def cl"
        ),
        "tryfirst",
    ),
    "orders nonsense": (
        PLUGIN.format(kind="broken", priority="'high'"),
        "priority must be an int",
    ),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, whose modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("plugin_one", "plugin_two", "plugin_bad"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def install_good(site: Path, name: str, module: str, kind: str, priority: int = 5) -> None:
    source = PLUGIN.format(kind=kind, priority=priority)
    install(site, name, module=module, source=source, entry_points={kind: f"{module}:Resource"})


def record_of(orchestrator: ResourceOrchestrator, distribution: str) -> PluginRecord:
    [record] = [each for each in orchestrator.records if each.distribution == distribution]
    return record


@pytest.mark.parametrize("how", BROKEN)
def test_one_bad_plugin_does_not_keep_the_others_from_loading(site: Path, how: str) -> None:
    """llm#1280: one bad plugin kills the program: record, report, go on; AssertionError too."""
    source, reason = BROKEN[how]
    install(
        site, "bad", module="plugin_bad", source=source, entry_points={"bad": "plugin_bad:Resource"}
    )
    install_good(site, "good", "plugin_one", "leases")

    orchestrator = ResourceOrchestrator().discover()
    sys.modules.pop("plugin_bad", None)

    bad = record_of(orchestrator, "bad")
    assert bad.status is PluginStatus.FAILED
    assert reason in bad.reason
    assert "leases" in orchestrator
    assert "bad" not in orchestrator


def test_a_disabled_plugin_is_never_imported(site: Path) -> None:
    """EnabledExtensionManager decides after the import, too late: names are selected before."""
    install_good(site, "one", "plugin_one", "leases")

    orchestrator = ResourceOrchestrator().discover(disable=["leases"])

    assert "plugin_one" not in sys.modules
    assert record_of(orchestrator, "one").status is PluginStatus.DISABLED
    assert "leases" not in orchestrator


def test_only_names_the_kinds_that_are_loaded(site: Path) -> None:
    """`only` leaves all others unimported; a kind that is not installed is an error."""
    install_good(site, "one", "plugin_one", "leases")
    install_good(site, "two", "plugin_two", "tokens")

    assert ResourceOrchestrator().discover(only=["tokens"]).registered_types() == ["tokens"]
    assert "plugin_one" not in sys.modules
    with pytest.raises(UnknownKindError, match="no plugin serves kind 'no-such'"):
        ResourceOrchestrator().discover(only=["no-such"])


def test_a_kind_that_was_disabled_says_so_where_it_is_asked_for(site: Path) -> None:
    """It is installed: to ask whether it is would send the reader the wrong way."""
    install_good(site, "one", "plugin_one", "leases")

    orchestrator = ResourceOrchestrator().discover(disable=["leases"])

    with pytest.raises(UnknownKindError, match="one is disabled: disabled by name"):
        orchestrator["leases"]


def test_a_class_whose_kind_was_disabled_says_so_where_it_is_asked_for() -> None:
    """By the package that the class is of; and so where coverage is checked."""
    from probate_sockets import SocketResource

    orchestrator = ResourceOrchestrator().discover(only=["sockets"], disable=["sockets"])
    with pytest.raises(UnknownKindError, match="probate-sockets is disabled"):
        orchestrator[SocketResource]
    with pytest.warns(MissingKindWarning, match="would leak .probate-sockets is disabled"):
        orchestrator.validate_coverage(["sockets"])


def test_an_adoption_says_which_kind_was_not_asked() -> None:
    """A socket that nobody takes: the kind that would is installed, and disabled."""
    orchestrator = ResourceOrchestrator().discover(disable=["sockets", "files"])

    with (
        socket.socket() as thing,
        pytest.raises(UnadoptableError, match=r"memory, .*not sockets \(disabled\)"),
    ):
        orchestrator.adopt(1, thing)


@pytest.mark.parametrize("given", [{"disable": ["no-such"]}, {"priorities": {"no-such": 1}}])
def test_a_kind_that_is_not_there_is_refused_wherever_it_is_named(
    site: Path, given: dict[str, Any]
) -> None:
    """Nothing is loaded then."""
    install_good(site, "one", "plugin_one", "leases")

    with pytest.raises(UnknownKindError, match=f"named in {next(iter(given))}"):
        ResourceOrchestrator().discover(**given)

    assert "plugin_one" not in sys.modules


def test_a_bare_string_is_no_collection_of_kinds() -> None:
    """discover(disable="mmap") would otherwise disable the kinds m, m, a and p."""
    with pytest.raises(TypeError, match="the string 'mmap'"):
        ResourceOrchestrator().discover(disable="mmap")


def test_a_plugin_for_another_core_is_reported_and_not_imported(site: Path) -> None:
    """Its distribution's own requirement on the core decides, before the import."""
    install(
        site,
        "future",
        module="plugin_bad",
        source="raise AssertionError('imported')",
        entry_points={"later": "plugin_bad:Resource"},
        requires="probate>=9,<10",
    )

    record = record_of(ResourceOrchestrator().discover(), "future")

    assert record.status is PluginStatus.INCOMPATIBLE
    assert "probate<10,>=9" in record.reason
    assert "plugin_bad" not in sys.modules


def test_what_cannot_be_used_is_logged_when_it_is_found(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning each: failed, or for another core; what was not asked for is nobody's surprise."""
    install(
        site,
        "bad",
        module="plugin_bad",
        source="raise OSError('no disk')",
        entry_points={"bad": "plugin_bad:Resource"},
    )
    for name, requires in (("later", "probate>=9"), ("one", "probate>=0.1")):
        install(
            site,
            name,
            module=f"plugin_{name}",
            source="",
            entry_points={name: f"plugin_{name}:Resource"},
            requires=requires,
        )
    ResourceOrchestrator().discover(only=["bad", "later", "one", "mmap"], disable=["one"])
    sys.modules.pop("plugin_bad", None)

    later = f"asks for probate>=9, and this is probate {__version__}"
    assert {(r.name, r.levelname) for r in caplog.records} == {("probate", "WARNING")}
    assert [r.getMessage().split(";")[0] for r in caplog.records] == [
        "kind 'bad' of bad is failed: OSError: no disk",
        f"kind 'later' of later is incompatible: {later}",
    ]


def test_of_two_distributions_for_a_kind_one_is_loaded_and_the_other_reported(site: Path) -> None:
    """Duplicates are found from metadata; stock resolvers see only adjacent ones."""
    install_good(site, "zebra", "plugin_one", "leases")
    install_good(site, "antelope", "plugin_two", "leases")

    orchestrator = ResourceOrchestrator().discover()

    assert type(orchestrator["leases"]).__module__ == "plugin_two"
    duplicate = record_of(orchestrator, "zebra")
    assert duplicate.status is PluginStatus.DUPLICATE
    assert "antelope serves this kind too" in duplicate.reason


def test_the_distribution_named_for_the_kind_has_the_first_claim(site: Path) -> None:
    """A stranger cannot take a kind over by an earlier name."""
    install_good(site, "aaa", "plugin_one", "leases")
    install_good(site, "probate-leases", "plugin_two", "leases")

    assert type(ResourceOrchestrator().discover()["leases"]).__module__ == "plugin_two"


def test_order_does_not_depend_on_names_or_on_the_order_of_installation(site: Path) -> None:
    """Kinds are ordered by their own `Ordering` alone."""
    install_good(site, "aaa", "plugin_one", "late", priority=-1)
    install_good(site, "zzz", "plugin_two", "early", priority=1000)

    types = ResourceOrchestrator().discover().registered_types()

    assert types[0] == "early"
    assert types[-1] == "late"


def test_a_kind_registered_by_hand_is_kept(site: Path) -> None:
    """Discovery does not replace what the program has chosen."""
    install_good(site, "one", "plugin_one", "leases")
    by_hand = type(ResourceOrchestrator().discover(only=["leases"])["leases"])()

    orchestrator = ResourceOrchestrator().register(by_hand, "leases").discover()

    assert orchestrator["leases"] is by_hand
    assert record_of(orchestrator, "one").reason == "this kind was registered before"


def test_an_entry_point_changed_in_place_is_seen(site: Path) -> None:
    """Stevedore's on-disk cache can hide an in-place change of entry points: it is not asked."""
    script = (
        "import json; from probate import ResourceOrchestrator;"
        "print(json.dumps(ResourceOrchestrator().discover().registered_types()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(site / "cache")}

    def kinds() -> list[str]:
        command = [sys.executable, "-c", script]
        found: list[str] = json.loads(subprocess.check_output(command, env=environment, timeout=30))
        return found

    install_good(site, "one", "plugin_one", "leases")
    before = kinds()
    [entry_points] = site.glob("*.dist-info/entry_points.txt")
    status = entry_points.stat()
    entry_points.write_text("[probate.resources]\ntokens = plugin_one:Resource\n")
    os.utime(entry_points, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert "leases" in before
    assert "tokens" in kinds()
    assert "leases" not in kinds()


def test_records_tell_all_there_is_to_know(site: Path) -> None:
    """Kind, distribution, version, priority, status, reason; JSON both ways."""
    install_good(site, "one", "plugin_one", "leases", priority=33)

    record = record_of(ResourceOrchestrator().discover(), "one")

    assert record.model_dump(mode="json") == {
        "kind": "leases",
        "distribution": "one",
        "version": "1.0",
        "priority": 33,
        "status": "loaded",
        "reason": "",
    }
    assert type(record).model_validate_json(record.model_dump_json()) == record


def test_of_a_cycle_the_one_that_closes_it_is_refused_and_the_others_are_loaded(
    site: Path,
) -> None:
    """All are registered at once; a bad one among them costs nobody else."""
    for name, module, kind, other in (
        ("one", "plugin_one", "leases", "tokens"),
        ("two", "plugin_two", "tokens", "leases"),
    ):
        source = PLUGIN.format(kind=kind, priority=f"5, before=({other!r},)")
        install(site, name, module=module, source=source, entry_points={kind: f"{module}:Resource"})
    install_good(site, "bad", "plugin_bad", "zoning")

    orchestrator = ResourceOrchestrator().discover(only=["leases", "tokens", "zoning"])

    assert set(orchestrator) == {"leases", "zoning"}
    assert record_of(orchestrator, "two").status is PluginStatus.FAILED
    assert record_of(orchestrator, "two").reason.startswith(
        "OrderingCycleError: before/after of these kinds form a cycle"
    )
    assert [record.distribution for record in orchestrator.records[:2]] == ["bad", "one"]


def test_one_plugin_for_two_kinds_serves_the_first(site: Path) -> None:
    """Although both were found good before either was registered."""
    source = PLUGIN.format(kind="leases", priority=5) + "\nthe_one = Resource()\n"
    source += "def make():\n    return the_one\n"
    install(
        site,
        "one",
        module="plugin_one",
        source=source,
        entry_points={"tokens": "plugin_one:make", "leases": "plugin_one:make"},
    )

    orchestrator = ResourceOrchestrator().discover(only=["leases", "tokens"])

    assert list(orchestrator) == ["leases"]
    assert [record.reason for record in orchestrator.records if record.kind == "tokens"] == [
        "UnusablePluginError: plugin 'tokens' cannot be used: it is registered already, as 'leases'"
    ]


def test_kinds_found_together_are_each_given_back(site: Path) -> None:
    """Registered at once, each is asked and cleaned on its own, highest priority first."""
    install_good(site, "one", "plugin_one", "leases", priority=2)
    install_good(site, "two", "plugin_two", "tokens", priority=1)
    orchestrator = ResourceOrchestrator().discover(only=["leases", "tokens"])
    for kind in orchestrator:
        orchestrator[kind].table.add(1, object())

    result = orchestrator.cleanup_process(1)

    assert list(result.stats.by_type.items()) == [("leases", 1), ("tokens", 1)]
    assert orchestrator.has_resources(1) is False


def test_of_a_distribution_that_is_on_the_path_twice_the_first_counts(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for `import`: also if the first has no entry points, and is another version."""
    install_good(site, "Acme.Leases", "plugin_one", "leases")
    nearer = site / "nearer"
    nearer.mkdir()
    install(nearer, "acme_leases", module="plugin_two", source="", entry_points={}, version="2.0")
    found = {record.kind for record in ResourceOrchestrator().discover(disable=["leases"]).records}
    monkeypatch.syspath_prepend(str(nearer))

    records = ResourceOrchestrator().discover(only=["sockets"]).records

    assert "leases" in found
    assert "leases" not in {record.kind for record in records}


def test_the_name_in_the_metadata_counts_and_not_that_of_the_folder(site: Path) -> None:
    """The name in the metadata counts, not that of the folder."""
    install_good(site, "one", "plugin_one", "leases")
    [folder] = site.glob("*.dist-info")
    folder.rename(site / "uno-1.0.dist-info")

    record = record_of(ResourceOrchestrator().discover(only=["leases"]), "one")

    assert (record.status, record.version) == (PluginStatus.LOADED, "1.0")


def test_metadata_are_read_as_mail_is(site: Path) -> None:
    """In any case, over several lines, and not from the README below: PyPA's core metadata."""
    install_good(site, "one", "plugin_one", "leases")
    [metadata] = site.glob("*.dist-info/METADATA")
    metadata.write_text(
        "NAME: one\nversion:1.2\nSummary: one\n  Version: 9.8\nRequires-Dist: zope\n"
        "requires-dist: probate\n\t>=9999\n\nName: two\nVersion: 3.4\n"
    )

    record = record_of(ResourceOrchestrator().discover(only=["leases"]), "one")

    assert (record.status, record.version) == (PluginStatus.INCOMPATIBLE, "1.2")
    assert "probate>=9999" in record.reason


def test_a_version_that_metadata_lack_is_none_that_is_listed(site: Path) -> None:
    """It is loaded all the same."""
    install_good(site, "one", "plugin_one", "leases")
    [metadata] = site.glob("*.dist-info/METADATA")
    metadata.write_text("Name: one\n")

    record = record_of(ResourceOrchestrator().discover(only=["leases"]), "one")

    assert (record.status, record.version) == (PluginStatus.LOADED, "")
