"""docs/contract.md says what the hooks are, and what is public."""

from __future__ import annotations

import inspect
import re
import tomllib

import pytest
from documents import REPOSITORY, code_blocks

import probate
from probate import hookspecs
from probate.hookspecs import REQUIRED_HOOKS, HookDeprecationWarning
from probate.plugins.requirement import range_of

PAGE = REPOSITORY / "docs" / "contract.md"
TEXT = PAGE.read_text()


def test_each_hook_is_listed_with_its_arguments() -> None:
    """All that are specified, in their order there, with names in the order of the call."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", TEXT, re.MULTILINE)

    assert {hook: re.findall(r"`(\w+)`", arguments) for hook, arguments in rows} == {
        name: list(inspect.signature(value).parameters)
        for name, value in vars(hookspecs).items()
        if hasattr(value, "probate_spec")
    }


def test_the_required_ones_are_named() -> None:
    """In the sentence that says that there are no others."""
    [sentence] = re.findall(r"^- (.*) are all that must be there", TEXT, re.MULTILINE)

    assert tuple(re.findall(r"`(\w+)`", sentence)) == REQUIRED_HOOKS


def test_the_range_that_is_shown_is_that_of_this_core() -> None:
    """As the scaffold writes it."""
    [block] = code_blocks(PAGE, "toml")
    asked = range_of(probate.__version__)

    assert tomllib.loads(block)["dependencies"] == [f"probate{asked}"]
    assert f"from {asked.split(',')[0][2:]}.0 until {asked.split('<')[1]}:" in TEXT


def test_what_is_public_is_what_the_package_says() -> None:
    """The same modules, but for the settings, which are no plugin's."""
    [line] = re.findall(r"^- What (.*?)list\s+is public", TEXT, re.MULTILINE | re.DOTALL)
    said = (probate.__doc__ or "").partition("Public are the names that ")[2].partition(" list;")[0]
    faces = {name.removeprefix("probate") for name in re.findall(r"`([\w.]+)`", said)}

    assert {name.removeprefix("probate") for name in re.findall(r"`([\w.]+)`", line)} == (
        faces - {".settings"} | {""}
    )


@pytest.mark.parametrize("word", ["HookDeprecationWarning", "ENTRY_POINT_GROUP"])
def test_what_is_named_is_so(word: str) -> None:
    """The warning by its name, the group by its value."""
    value = getattr(hookspecs, word)

    assert (f"`probate.hookspecs.{word}`" if value is HookDeprecationWarning else value) in TEXT
