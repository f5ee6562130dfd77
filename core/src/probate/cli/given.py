"""What settings say to the command line; where nobody has set anything, without reading them.

pydantic-settings takes longer to import than all ten kinds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Mapping


@final
class Given(NamedTuple):
    """The settings that the command line acts upon."""

    disable: tuple[str, ...] = ()
    priorities: Mapping[str, int] = {}
    trace: bool = False


def given(disable: str | None = None) -> Given:
    """Read the settings; `disable`, kinds separated by commas, takes the place of theirs.

    Raises ValueError, with every setting that is wrong.
    """
    if disable is None and not is_anything_set():
        return Given()
    from pydantic import ValidationError

    from probate.settings import Settings, split_kinds

    try:
        settings = Settings() if disable is None else Settings(disable=split_kinds(disable))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ValueError(f"settings: {'; '.join(problems)}") from error
    return Given(settings.disable, settings.priorities, settings.trace)


def is_anything_set() -> bool:
    """Whether there is any place in which `Settings` would find something; see there."""
    if any(name.upper().startswith("PROBATE_") for name in os.environ):
        return True
    return Path("probate.toml").is_file() or _has_table(Path("pyproject.toml"))


def _has_table(path: Path) -> bool:
    if not path.is_file():
        return False
    import tomllib

    try:
        with path.open("rb") as file:
            return "probate" in tomllib.load(file).get("tool", {})
    except (OSError, ValueError):
        # Whoever reads the settings will say what is wrong with it.
        return True
