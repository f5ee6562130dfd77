"""Parts of pages that are made from the code, in Markdown, as the site is built.

hooks-table            each hook: whether it is required, what it does, where it runs
error-tree             the core's exceptions, as their module draws them
settings-table         each setting, from the class `Settings`
command-line           each command with its options, from click
adopted-by KIND        what a kind takes, from the tables of docs/adoption.md
unreleased-changes     the fragments in changelog.d/
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from public_names import hooks
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

DOCS: Final = Path(__file__).parents[1]

#: What the types of fragments are called, in the order in which they are told.
CHANGES: Final = {
    "feature": "New",
    "bugfix": "Mended",
    "removal": "Gone, or another now",
    "doc": "Documents",
}


def hooks_table() -> str:
    """A row for each hook."""
    from probate import hookspecs

    rows = ["| hook | | does | runs on |", "|---|---|---|---|"]
    for name, hook in hooks().items():
        [does, *_] = re.split(r"[.;](?:\s|$)", inspect.getdoc(getattr(hookspecs, name)) or "")
        does = " ".join(does.split())
        rows.append(
            f"| {{py:func}}`{name} <probate.hookspecs.{name}>` | {hook.need} | {does} "
            f"| {hook.thread} |"
        )
    return "\n".join(rows)


def error_tree() -> str:
    """The drawing, without what is said around it."""
    from probate import errors

    lines = [line for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    return "\n".join(["```text", *(line[4:] for line in lines), "```"])


def settings_table() -> str:
    """A row for each setting: its variable, what it is by default, what it means."""
    from probate.settings import Settings

    comments = ModuleAnalyzer.for_module("probate.settings").find_attr_docs()
    rows = ["| setting | environment | default | means |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        meaning = " ".join(comments["Settings", name]).strip()
        rows.append(f"| `{name}` | `PROBATE_{name.upper()}` | `{default!r}` | {meaning} |")
    return "\n".join(rows)


def command_line() -> str:
    """A section for each command: how it is called, what it does, its options."""
    from probate.cli.app import app

    parts = []
    for name, command in app.commands.items():
        context = click.Context(command, info_name=f"probate {name}")
        parts += [f"## probate {name}", f"```text\n{command.get_usage(context)[7:]}\n```"]
        parts.append(_plain(inspect.cleandoc(command.help or "")))
        rows = [each.get_help_record(context) for each in command.params]
        options = [
            f"| `{_cell(option)}` | {_cell(_plain(told))} |" for option, told in filter(None, rows)
        ]
        if options:
            parts.append("\n".join(["| option | does |", "|---|---|", *options]))
    return "\n\n".join(parts)


def adopted_by(kind: str) -> str:
    """The rows of what a kind takes, and what becomes of it."""
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in (DOCS / "adoption.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    taken = [row for row in rows if len(row) > 3 and row[2] == kind]
    if not taken:
        return "Nothing: what it owns is made by its manager."
    lines = [f"| {what} | `{cls.strip('`')}` | {end} |" for what, cls, _, end, *_ in taken]
    return "\n".join(["| what | class | its owner's end |", "|---|---|---|", *lines])


def unreleased_changes() -> str:
    """The fragments of the next release, by type, as towncrier would have them."""
    parts = []
    for sort, title in CHANGES.items():
        found = sorted((DOCS.parent / "changelog.d").glob(f"*.{sort}.md"))
        told = [each.read_text().strip().replace("\n", "\n  ") for each in found]
        if told:
            parts += [f"### {title}", "\n".join(f"- {each}" for each in told)]
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """Markdown of a text for terminals: names and options are code."""
    text = re.sub(r"(?<![`\w-])(--[a-z][\w-]*|\$?PROBATE_\w+(?:=\w+)?)", r"`\1`", text)
    return text.replace("`probate.testing`", "{py:mod}`probate.testing`")


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


class _Generated(SphinxDirective):
    """Parses what a function returns."""

    def run(self) -> list[nodes.Node]:
        """Make it part of the page."""
        return self.parse_text_to_nodes(self.text(), allow_section_headings=True)

    def text(self) -> str:
        """What is parsed."""
        raise NotImplementedError


class HooksTable(_Generated):
    """`hooks-table`."""

    def text(self) -> str:
        """All hooks."""
        return hooks_table()


class ErrorTree(_Generated):
    """`error-tree`."""

    def text(self) -> str:
        """All of it."""
        return error_tree()


class SettingsTable(_Generated):
    """`settings-table`."""

    def text(self) -> str:
        """All settings."""
        return settings_table()


class CommandLine(_Generated):
    """`command-line`."""

    def text(self) -> str:
        """All commands."""
        return command_line()


class AdoptedBy(_Generated):
    """`adopted-by KIND`."""

    required_arguments = 1

    def text(self) -> str:
        """What this one takes."""
        return adopted_by(self.arguments[0])


class UnreleasedChanges(_Generated):
    """`unreleased-changes`."""

    def text(self) -> str:
        """All fragments."""
        return unreleased_changes()


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of all of it."""
    app.add_directive("hooks-table", HooksTable)
    app.add_directive("error-tree", ErrorTree)
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("command-line", CommandLine)
    app.add_directive("adopted-by", AdoptedBy)
    app.add_directive("unreleased-changes", UnreleasedChanges)
    return {"parallel_read_safe": True}
