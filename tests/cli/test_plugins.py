"""`probate plugins`: what is installed, in which order, and why anything is not loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from distributions import PLUGIN, install
from kinds import KINDS, PRIORITIES
from terminals import run_in_terminal

from probate import ResourceOrchestrator, __version__
from probate.plugins.requirement import range_of

PROBATE = Path(sys.executable).with_name("probate")

#: What takes long to import, and is there for what a kind does, not for its place in a list.
HEAVY = (
    "asyncio", "click", "email.parser", "multiprocessing", "numpy", "packaging", "pickle", "psutil",
    "pydantic", "rich", "tomllib", "probate.models", "probate.orchestrator", "probate.settings",
)  # fmt: skip

#: The command, which tells in its end which modules it has loaded.
TELLING = """
import atexit, sys
from probate.cli import main
atexit.register(lambda: print(*sys.modules, sep="\\n", file=sys.stderr))
sys.argv[1:] = ["plugins"]
main()
"""


def plugins(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, run in a folder, with no settings in its environment but these."""
    inherited = {key: value for key, value in os.environ.items() if "PROBATE_" not in key.upper()}
    return subprocess.run(
        [PROBATE, "plugins", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**inherited, **environment},
    )


def disabled(ran: subprocess.CompletedProcess[str]) -> list[str]:
    return sorted(each["kind"] for each in json.loads(ran.stdout) if each["status"] == "disabled")


def test_the_kinds_are_listed_in_cleanup_order(tmp_path: Path) -> None:
    """For people: a line a plugin."""
    ran = plugins(tmp_path)
    lines = [line.split() for line in ran.stdout.splitlines()[1:]]

    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line[0] for line in lines] == KINDS
    assert {line[4] for line in lines} == {"loaded"}


def test_to_list_kinds_nothing_is_imported_that_takes_long(tmp_path: Path) -> None:
    """It is what a shell runs to look, and starts as fast as what it is made of."""
    inherited = {key: value for key, value in os.environ.items() if "PROBATE_" not in key.upper()}
    ran = subprocess.run(
        [sys.executable, "-c", TELLING],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
        env=inherited,
    )
    loaded = ran.stderr.splitlines()

    assert "probate_memory.manager" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_json_is_for_machines(tmp_path: Path) -> None:
    """An array of objects, with all that a record tells, in cleanup order."""
    records = json.loads(plugins(tmp_path, "--json").stdout)

    assert {record["kind"]: record["priority"] for record in records} == PRIORITIES
    assert [record["kind"] for record in records] == KINDS
    fields = ["kind", "distribution", "version", "priority", "status", "reason"]
    assert list(records[0]) == fields


def test_a_broken_plugin_is_reported_and_the_rest_works(tmp_path: Path) -> None:
    """The list says what is wrong, on one line, after the others; the exit code says so too."""
    install(
        tmp_path,
        "broken",
        module="broken",
        source="raise OSError('no\\n  disk')",
        entry_points={"broken": "broken:Resource"},
    )
    script = (
        "import json; from probate import ResourceOrchestrator as O; "
        "print(json.dumps([each.model_dump(mode='json') for each in O().discover().records]))"
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    records = subprocess.check_output(
        [sys.executable, "-c", script], env={**os.environ, **environment}, timeout=60
    )

    as_json = plugins(tmp_path, "--json", **environment)
    text = plugins(tmp_path, **environment)

    assert json.loads(as_json.stdout) == json.loads(records)
    assert (as_json.returncode, text.returncode) == (1, 1)
    assert len(text.stdout.splitlines()) == 1 + len(KINDS) + 1
    assert text.stdout.splitlines()[-1].endswith("failed  OSError: no disk")


def test_columns_stand_below_their_headings(tmp_path: Path) -> None:
    """Numbers at the right of theirs; no line ends in blanks."""
    lines = plugins(tmp_path).stdout.splitlines()
    start = lines[0].index("distribution")

    assert {line[start - 3].isdigit() for line in lines[1:]} == {True}
    assert {line[start:].split("-")[0] for line in lines[1:]} == {"probate"}
    assert [line.rstrip() for line in lines] == lines


@pytest.mark.parametrize("how", ["option", "variable", "probate.toml", "pyproject.toml"])
def test_a_kind_can_be_disabled_by_name(tmp_path: Path, how: str) -> None:
    """By option, by environment, in either file; the list says so."""
    if how == "option":
        ran = plugins(tmp_path, "--json", "--disable", "rings,mmap")
    elif how == "variable":
        ran = plugins(tmp_path, "--json", PROBATE_DISABLE="rings, mmap")
    else:
        table = "" if how == "probate.toml" else "[tool.other]\nx = 1\n[tool.probate]\n"
        (tmp_path / how).write_text(f"{table}disable = ['rings', 'mmap']\n")
        ran = plugins(tmp_path, "--json")

    assert disabled(ran) == ["mmap", "rings"]


def test_the_option_takes_the_place_of_the_setting(tmp_path: Path) -> None:
    """Of any setting of that name, wherever it is; others stay."""
    (tmp_path / "probate.toml").write_text("disable = ['ipc']\npriorities = {memory = 77}\n")
    ran = plugins(tmp_path, "--json", "--disable", "rings", PROBATE_DISABLE="mmap")
    priorities = {record["kind"]: record["priority"] for record in json.loads(ran.stdout)}

    assert disabled(ran) == ["rings"]
    assert priorities["memory"] == 77


def test_anothers_pyproject_is_no_setting(tmp_path: Path) -> None:
    """Nothing of ours in it: nothing is set."""
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nprobate = 1\n[project]\nname = 'x'\n")

    assert disabled(plugins(tmp_path, "--json")) == []


@pytest.mark.parametrize(
    ("file", "text", "variables", "said"),
    [
        ("", "", {"PROBATE_GRACE": "soon"}, "settings: grace: Input should be a valid number"),
        ("", "", {"PROBATE_LIMITS": "{"}, "settings: limits: Input should be a valid dictionary"),
        ("probate.toml", "[probate\n", {}, "settings: "),
        ("pyproject.toml", "[tool.probate\n", {}, "settings: "),
        ("probate.toml", "disabled = ['mmap']\n", {}, "settings: disabled: Extra inputs"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_2(
    tmp_path: Path, file: str, text: str, variables: dict[str, str], said: str
) -> None:
    """It is named, with what is wrong about it; a broken file is not one without settings."""
    if file:
        (tmp_path / file).write_text(text)

    ran = plugins(tmp_path, **variables)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 1
    assert said in ran.stderr


@pytest.mark.parametrize("is_set", [False, True])
def test_a_reader_who_has_seen_enough_is_no_error(tmp_path: Path, is_set: bool) -> None:
    """Exit 1 without a word, as click does; with click, if anything is set, and without."""
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [PROBATE, "plugins"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        # What writes at once fails at once; here it is to fail in the end.
        env={"PROBATE_GRACE": "1"} if is_set else {},
        timeout=60,
        check=False,
    )
    os.close(writer)

    assert (ran.returncode, ran.stderr) == (1, b"")


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    """With a line below the headings; the text is the same."""
    shown = run_in_terminal([PROBATE, "plugins"], cwd=tmp_path)
    plain = plugins(tmp_path).stdout.splitlines()

    assert shown.returncode == 0
    headings, rule, *rows = shown.lines
    assert set(rule) == {"─"}
    assert [line.split() for line in [headings, *rows]] == [line.split() for line in plain]


def test_nothing_found_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And how to mend it; to machines it is an empty array."""
    from probate.cli.app import plugins
    from probate.plugins import discovery

    monkeypatch.setattr(discovery, "scan", list)

    assert ResourceOrchestrator().discover().records == []
    with pytest.raises(SystemExit, match="0"):
        plugins.main([], standalone_mode=False)
    assert capsys.readouterr().out.startswith("no plugins found: pip install")
    with pytest.raises(SystemExit, match="0"):
        plugins.main(["--json"], standalone_mode=False)
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROBATE_DISABLE", "mmpa"),
        ("PROBATE_PRIORITIES", '{"mmpa": 5}'),
        ("PROBATE_LIMITS", '{"by_kind": {"mmpa": {"max_count": 1}}}'),
    ],
)
def test_an_unknown_kind_in_the_settings_is_an_error(tmp_path: Path, name: str, value: str) -> None:
    """It would silently do nothing; what there is is listed, and the nearest suggested."""
    answer = plugins(tmp_path, **{name: value})

    assert (answer.returncode, answer.stdout) == (2, "")
    assert "no plugin serves kind 'mmpa'; registered: " in answer.stderr
    assert "did you mean 'mmap'?" in answer.stderr


def check(site: Path, kind: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`probate plugins --check` of a kind, with what is installed in a folder."""
    return plugins(site, "--check", kind, *arguments, PYTHONPATH=str(site))


def install_crates(site: Path, written: str = "", instead: str = "") -> None:
    """Install a plugin in whose source something else is written."""
    source = PLUGIN.format(kind="crates", priority=1)
    assert written in source
    entry_points = {"crates": "crates:Resource"}
    source = source.replace(written, instead) if written else source
    install(site, "acme-crates", module="crates", source=source, entry_points=entry_points)


NOTICED = "@hookimpl\n    def noticed(self, notice): ...\n\n    @hookimpl\n    def cleanup"
UNMARKED = "def quiesce(self, pid):\n        return ()\n\n    @hookimpl\n    def cleanup"


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("@hookimpl\n    def cleanup", UNMARKED, "quiesce() is there, but has no mark"),
        ("cleanup(self, pid)", "cleanup(self, *pids)", "cleanup(*pids) is called with nothing"),
        ("cleanup(self, pid)", "cleanup(self, pid=0)", "cleanup(pid=0) is called with nothing"),
        ("@hookimpl\n    def cleanup", NOTICED, "it takes a reclaim() as well"),
        ("Ordering(1)", "Ordering(1, before=['fils'])", "did you mean 'files'?"),
        ("import Ordering", "import Odering", "it cannot be loaded: ImportError"),
        ("self.table = ", "self.tables = [0]; self.tables[0] = ", "no OwnershipTable"),
    ],
    ids=["unmarked", "arguments", "default", "noticed", "before", "import", "table"],
)
def test_what_registers_silently_is_found(
    tmp_path: Path, written: str, instead: str, said: str
) -> None:
    """It would never be called, or in another place than its author thinks; exit 1."""
    install_crates(tmp_path, written, instead)

    ran = check(tmp_path, "crates")

    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.startswith("crates (acme-crates 1.0): 1 fault\n- ")
    assert said in ran.stdout


@pytest.mark.parametrize("requires", ["click", "probate", "probate>=0.1", "probate!=0.2,>0"])
def test_a_range_of_cores_that_has_no_end_is_a_fault(tmp_path: Path, requires: str) -> None:
    """A core of another contract would import it; the range that this core is in is named."""
    source, entry_points = PLUGIN.format(kind="crates", priority=1), {"crates": "crates:Resource"}
    install(
        tmp_path, "c", module="crates", source=source, entry_points=entry_points, requires=requires
    )

    ran = check(tmp_path, "crates")

    assert ran.returncode == 1
    assert ran.stdout.startswith("crates (c 1.0): 1 fault\n- any later core loads it")
    assert ran.stdout.endswith(f"have its distribution depend on probate{range_of(__version__)}\n")


def test_a_plugin_without_faults_is_said_to_have_none(tmp_path: Path) -> None:
    """Exit 0; as JSON, an empty list."""
    install_crates(tmp_path)

    ran, as_json = check(tmp_path, "crates"), check(tmp_path, "crates", "--json")

    assert (ran.returncode, ran.stdout) == (0, "crates (acme-crates 1.0): no faults\n")
    assert json.loads(as_json.stdout) == {
        "kind": "crates",
        "distribution": "acme-crates",
        "version": "1.0",
        "faults": [],
    }


def test_an_observer_has_no_fault_but_is_no_kind(tmp_path: Path) -> None:
    """What only wraps hooks may be installed as well."""
    source = "import probate\nclass Audit:\n    @probate.hookimpl(wrapper=True)\n"
    source += "    def cleanup(self, pid):\n        return (yield)\n"
    entry_points = {"audit": "audit:Audit"}
    install(tmp_path, "audit", module="audit", source=source, entry_points=entry_points)

    assert check(tmp_path, "audit").stdout == "audit (audit 1.0): no faults\n"


def test_what_others_make_of_a_plugin_is_a_fault_too(tmp_path: Path) -> None:
    """By itself it is without: a cycle, another core, another that serves the kind."""
    install_crates(tmp_path, "Ordering(1)", "Ordering(1, before=['boxes'])")
    source = PLUGIN.format(kind="boxes", priority=1)
    source = source.replace("Ordering(1)", "Ordering(1, before=['crates'])")
    entry_points = {"boxes": "boxes:Resource"}
    install(tmp_path, "boxes", module="boxes", source=source, entry_points=entry_points)
    entry_points = {"nets": "boxes:Resource"}
    requires = "probate>=7"
    install(tmp_path, "nets", module="n", source="", entry_points=entry_points, requires=requires)

    ran = [check(tmp_path, "boxes"), check(tmp_path, "crates")]
    found = [each.stdout for each in ran if "it is failed" in each.stdout]

    assert sorted(each.returncode for each in ran) == [0, 1]
    assert len(found) == 1
    assert "asks for probate>=7" in check(tmp_path, "nets").stdout


def test_a_plugin_that_is_not_installed_cannot_be_checked(tmp_path: Path) -> None:
    """Wrong usage: exit 2, with what may have been meant."""
    ran = plugins(tmp_path, "--check", "sokets")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "did you mean 'sockets'?" in ran.stderr
