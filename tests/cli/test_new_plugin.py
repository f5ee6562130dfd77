"""`probate new-plugin`: a distribution that is whole, or an error and nothing at all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from checkers import run_mypy
from core_scripts import run_script
from distributions import install

from probate.cli.newplugin import new_plugin

PROBATE = Path(sys.executable).with_name("probate")

LONGEST = f"a{'b' * 39}"

#: Runs the command where `what` comes in at the moment at which an audit event says `moment`.
INTERRUPTED = """
import errno, signal, sys
from probate.cli import main

def listen(event, arguments):
    if event == {event!r} and str(arguments[0]).endswith({path!r}):
        if {what!r}.startswith("SIG"):
            signal.raise_signal(signal.Signals[{what!r}])
        elif "w" in str(arguments[1]) or event != "open":
            raise OSError(errno.ENOSPC, "No space left on device")

sys.addaudithook(listen)
sys.argv = ["probate", "new-plugin", "crates"]
main()
"""

#: Runs it where copier is not installed.
WITHOUT_COPIER = """
import importlib.util, sys
from probate.cli import main, newplugin
newplugin.find_spec = lambda name: None
sys.argv = ["probate", "new-plugin", "crates"]
main()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["x", "GPU_Leases.2", "conformance", LONGEST])
def test_what_is_made_pleases_ruff(folder: Path, name: str) -> None:
    """However short or long its name is; also as it is formatted."""
    new_plugin(name)

    for command in (["check"], ["format", "--check"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", name],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.timeout(180)
def test_what_is_made_passes_mypy(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Strictly, as its own settings say."""
    new_plugin("probate-crates", "boxes")

    ran = run_mypy(tmp_path_factory, folder / "probate-crates")

    assert ran.stdout.startswith("Success"), ran.stdout
    entry_point = 'boxes = "probate_crates:BoxesResource"'
    assert entry_point in Path("probate-crates/pyproject.toml").read_text()


def test_no_file_names_a_place_that_is_not_its_own(folder: Path) -> None:
    """No address is in what is made, nothing of the template is left to fill in."""
    new_plugin("crates")
    texts = [path.read_text() for path in Path("crates").rglob("*") if path.is_file()]

    assert len(texts) == 8
    assert [text for text in texts if re.search(r"\w+://|\{\{ \w+ \}\}", text)] == []


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("", None, "'' is no name for a distribution: a letter"),
        ("../crates", None, "is no name for a distribution"),
        ("a b", None, "is no name for a distribution"),
        ("crates-", None, "is no name for a distribution"),
        ("9crates", None, "is no name for a distribution"),
        ("\N{LATIN SMALL LETTER LONG S}", None, "is no name for a distribution"),
        (f"{LONGEST}c", None, "at most 40"),
        ("class", None, "would be imported as 'class', which is something else here"),
        ("Json", None, "would be imported as 'json', which is something else here"),
        ("pytest", None, "would be imported as 'pytest'"),
        ("probate", None, "would be imported as 'probate'"),
        ("probate-2", None, "'2' is no name for a kind"),
        ("crates", "Crates", "'Crates' is no name for a kind"),
        ("crates", "a,b", "'a,b' is no name for a kind"),
        ("sockets", None, "probate-sockets serves kind 'sockets'; choose another by --kind"),
        ("crates", "mmap", "probate-mmap serves kind 'mmap'"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    folder: Path, name: str, kind: str | None, said: str
) -> None:
    """It says which, why, and what to choose; nothing is made."""
    with pytest.raises(click.UsageError, match=re.escape(said)):
        new_plugin(name, kind)

    assert list(folder.iterdir()) == []


def test_a_kind_of_probates_own_is_refused_also_where_it_is_not_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has only the core would make what nobody can install beside the rest."""
    from probate.cli import newplugin

    monkeypatch.setattr(newplugin, "scan", list)

    with pytest.raises(click.UsageError, match="probate-sockets serves kind 'sockets'"):
        new_plugin("sockets")


def test_a_kind_that_anybody_serves_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two could not be loaded side by side; who serves it is named."""
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(str(site))
    install(site, "acme", module="acme", source="", entry_points={"leases": "acme:Leases"})

    with pytest.raises(click.UsageError, match="acme serves kind 'leases'; choose another by"):
        new_plugin("leases")

    assert new_plugin("leases", "berths") == "berths"


@pytest.mark.parametrize("what", ["folder", "file", "dangling link"])
def test_what_is_there_is_left_alone(folder: Path, what: str) -> None:
    """Whatever it is, empty or not."""
    crates = folder / "crates"
    if what == "folder":
        crates.mkdir()
    elif what == "file":
        crates.touch()
    else:
        crates.symlink_to("nowhere")

    with pytest.raises(click.UsageError, match="crates is there already"):
        new_plugin("crates")

    assert list(folder.iterdir()) == [crates]
    assert not crates.is_dir() or list(crates.iterdir()) == []


def test_without_copier_the_way_out_is_one_line(folder: Path) -> None:
    """It names the extra; exit 2, and nothing is made."""
    ran = run_script(WITHOUT_COPIER)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(ran.stderr.splitlines()) == 1
    assert "pip install 'probate[scaffold]'" in ran.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("event", "path", "what"),
    [
        ("open", "crates/pyproject.toml", "SIGINT"),
        ("open", "py.typed", "no room"),
        ("open", "py.typed", "SIGTERM"),
        ("os.rename", "crates", "SIGHUP"),
        ("open", "test_program.py", "SIGINT"),
        ("os.rename", "crates", "SIGINT"),
        ("os.rename", "crates", "no room"),
    ],
)
def test_nothing_half_written_stays(folder: Path, event: str, path: str, what: str) -> None:
    """Whether it is interrupted, ended, or without room, at the first file or the last step."""
    # Without -W error, by which copier's own generators are complained of when they are dropped.
    script = INTERRUPTED.format(event=event, path=path, what=what)
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    said, code = {
        "SIGINT": ("probate: interrupted", 130),
        "SIGTERM": ("", 143),
        "SIGHUP": ("", 129),
        "no room": ("probate: [Errno 28] No space left on device", 1),
    }[what]

    assert list(folder.iterdir()) == []
    assert (ran.stdout, ran.stderr.strip(), ran.returncode) == ("", said, code)


def test_settings_for_other_templates_are_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the user for copier: also if they are broken, or would answer for us."""
    settings = folder / "settings.yml"
    settings.write_text("defaults: {kind: [")
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(settings))

    assert new_plugin("crates") == "crates"


def test_it_says_how_to_go_on(folder: Path) -> None:
    """What was made, how to try it, and where to read on; nothing else."""
    ran = subprocess.run(
        [PROBATE, "new-plugin", "probate-crates"], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[0] == (
        "made probate-crates, which serves kind 'crates'. To try it:"
    )
    assert Path("probate-crates/README.md").is_file()


def test_no_other_command_imports_what_it_takes() -> None:
    """copier, nor even how a plugin is made."""
    ran = run_script(
        "import json, sys, probate.cli.app; "
        "print(json.dumps([each for each in ('copier', 'jinja2', 'probate.cli.newplugin') "
        "if each in sys.modules]))"
    )

    assert json.loads(ran.stdout) == []
