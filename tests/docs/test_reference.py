"""The site is built without a warning, and every public name is in its reference."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from html import unescape
from typing import TYPE_CHECKING, Any, Final

import pytest
from documents import DOCS, REPOSITORY, code_blocks
from shared import shared

from probate import hookspecs
from probate.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

if importlib.util.find_spec("sphinx") is None:
    pytest.skip("needs Sphinx: group docs of pyproject.toml", allow_module_level=True)

from sphinx.util.inventory import InventoryFile

pytestmark = pytest.mark.timeout(900)

#: Also imported by the site's settings; tests do not have its folder on their path.
EXTENSIONS: Final = DOCS / "extensions"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: once, whichever worker comes first.

    But without the list of names beside each page, which takes a fifth of the time.
    """
    command = re.search(
        r"^\t@\$\(BIN\)/python (-m sphinx .*) docs build/docs$",
        (REPOSITORY / "Makefile").read_text(),
        re.MULTILINE,
    )
    assert command is not None
    build = [sys.executable, *command[1].split(), "-D", "toc_object_entries=0"]

    def make(site: Path) -> None:
        ran = subprocess.run(
            [*build, "-d", f"{site}.doctrees", "docs", site],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=800,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout

    return shared(tmp_path_factory, "site", make)


@pytest.fixture(scope="module")
def public_names() -> Any:
    """The extension that says what is public."""
    spec = importlib.util.spec_from_file_location("public_names", EXTENSIONS / "public_names.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page: Path) -> str:
    """What is read of a page."""
    body = page.read_text().partition("<article")[2].partition("</article>")[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_every_public_name_is_in_the_reference(site: Path, public_names: Any) -> None:
    """By each module that lists it; `objects.inv` is what links of other projects go by."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    known = {name for sort, names in inventory.items() if sort.startswith("py:") for name in names}
    names = [each.full for each in public_names.public_names()]

    assert [name for name in names if name not in known] == []
    assert len(names) > 250
    assert {each.module for each in public_names.public_names()} >= {
        *("probate", "probate.errors", "probate.hookspecs", "probate.testing"),
        *(f"probate_{path.name}" for path in REPOSITORY.glob("plugins/*")),
    }


def test_every_hook_is_there_with_its_signature_and_its_thread(
    site: Path, public_names: Any
) -> None:
    """The table of the contract has each hook once, and the page says the same."""
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, "probate_spec")]
    table = public_names.hooks()
    text = text_of(site / "reference/hooks.html")

    assert sorted(table) == sorted(hooks)
    for name in hooks:
        hook = table[name]
        function = getattr(hookspecs, name)
        parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
        shown = re.search(rf"\b{name} \(.*?Runs on (.*?) \.", text)

        assert (name in hookspecs.REQUIRED_HOOKS) == (hook.need == "required")
        assert shown is not None, name
        assert shown[1] == hook.thread
        for parameter in parameters:
            assert f"{parameter} :" in shown[0]


def test_every_setting_and_command_is_there(site: Path) -> None:
    """With its variable, its options, and what it exits with."""
    from probate.cli.app import app

    settings = text_of(site / "reference/settings.html")
    for name in Settings.model_fields:
        assert f"PROBATE_{name.upper()}" in settings

    commands = text_of(site / "reference/command-line.html")
    for name, command in app.commands.items():
        options = [each for param in command.params for each in param.opts if each[:2] == "--"]
        assert f"probate {name}" in commands
        assert [each for each in options if each not in commands] == []

    page = (DOCS / "reference/command-line.md").read_text()
    assert set(re.findall(r"^\| `probate ([\w-]+)`", page, re.MULTILINE)) == set(app.commands)


def test_every_kind_has_a_page_with_all_that_is_told_of_it(site: Path, public_names: Any) -> None:
    """Its README, what it adopts, and its names."""
    for project in REPOSITORY.glob("plugins/*"):
        text = text_of(site / f"reference/kinds/{project.name}.html")

        assert f"Kind {project.name} , priority" in text
        assert re.search(r"stage what happens|Cleanup|cleanup", text)
        assert "What is adopted" in text
        names = public_names.listed(f"probate_{project.name}")
        assert [name for name in names if name not in text] == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """Neither scripts, styles, fonts nor pictures: the site is read without a network."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        fetched = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(\w+:)?//", page.read_text())
        assert fetched == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()[\"' ]*(https?:)?//", style.read_text()), style


def test_options_and_defaults_are_as_they_are_written(site: Path) -> None:
    """No dash is made of the two of an option; no default is what only the interpreter has."""
    for page in site.rglob("*.html"):
        text = text_of(page)

        assert "\N{EN DASH}" not in text, page
        assert not re.search(r"= <\s*(function|class|object)\b", text), page


def test_the_file_that_is_shown_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, as `probate.toml`; the kinds in it are kinds."""
    [shown] = code_blocks(DOCS / "reference/settings.md", "toml")
    (tmp_path / "probate.toml").write_text(shown)
    monkeypatch.chdir(tmp_path)

    settings = Settings()
    settings.check_installed()

    assert settings.model_fields_set == set(tomllib.loads(shown))
