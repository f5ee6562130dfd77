"""`probate new-plugin`: makes the distribution of a kind, whole, or nothing at all."""

from __future__ import annotations

import keyword
import os
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from probate.plugins.discovery import kinds_of_the_core, scan
from probate.plugins.requirement import canonical_name, range_of
from probate.version import __version__

#: PyPA's "Names and normalization"; no longer than lines of code with it can be.
_NAME: Final = re.compile(r"[a-z]([a-z0-9._-]{0,38}[a-z0-9])?", re.ASCII | re.IGNORECASE)

#: What copier copies.
_TEMPLATE: Final = Path(__file__).with_name("template")


def new_plugin(name: str, kind: str | None = None) -> str:
    """Make a distribution in ./NAME that serves a kind; return the kind's name.

    By default that is the distribution's, without `probate-`. Raises click.UsageError for a name
    that cannot be used or where copier is not installed, click.ClickException if that fails,
    OSError where nothing can be written; nothing is left in the folder then.
    """
    answers = _answers(name, kind)
    if os.path.lexists(name):
        raise click.UsageError(f"{name} is there already: remove it, or choose another name")
    if find_spec("copier") is None:
        raise click.UsageError("a new plugin needs copier: pip install 'probate[scaffold]'")
    # Made aside, and moved when it is whole; in the same folder, since only there a rename does it.
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=".") as aside:
        whole = Path(aside, name)
        _copy(whole, answers)
        whole.rename(name)
    return answers["kind"]


def _answers(name: str, kind: str | None) -> dict[str, str]:
    """Return what the template asks for. Raises click.UsageError."""
    if not _NAME.fullmatch(name):
        raise click.UsageError(
            f"{name!r} is no name for a distribution: a letter, then letters, digits, '-', "
            "'_' and '.', at the end a letter or digit; at most 40"
        )
    module = canonical_name(name).replace("-", "_")
    if keyword.iskeyword(module) or find_spec(module):
        raise click.UsageError(
            f"{name!r} would be imported as {module!r}, which is something else here already: "
            "choose another name"
        )
    kind = kind or canonical_name(name).removeprefix("probate-")
    if not _NAME.fullmatch(kind) or kind != canonical_name(kind):
        raise click.UsageError(
            f"{kind!r} is no name for a kind: a letter, then small letters, digits and single "
            "hyphens, at the end a letter or digit; at most 40: give one by --kind"
        )
    servers = {found.kind: found.distribution for found in scan()}
    server = servers.get(kind) or kinds_of_the_core().get(kind)
    if server is not None:
        raise click.UsageError(f"{server} serves kind {kind!r}; choose another by --kind")
    return {
        "name": name,
        "module": module,
        "kind": kind,
        "class_name": "".join(word.capitalize() for word in kind.split("-")),
        "core": range_of(__version__),
    }


def _copy(folder: Path, answers: dict[str, str]) -> None:
    """Have copier copy the template. Raises click.ClickException."""
    import copier
    from copier.errors import CopierError

    try:
        # Without the user's own settings for copier, which are for other templates.
        copier.run_copy(
            str(_TEMPLATE), folder, answers, settings=copier.Settings(), defaults=True, quiet=True
        )
    except CopierError as error:
        raise click.ClickException(f"copier could not make it: {error}") from error
