"""The tutorial, followed as a reader does: files are saved by their names, commands are typed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from documents import DOCS, check_console

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: The pages, in the order in which they are read.
PAGES: Final = [
    DOCS / "tutorial" / f"{name}.md"
    for name in re.findall(
        r"^([\w-]+)$",
        (DOCS / "tutorial/index.md").read_text().partition("{toctree}")[2],
        re.MULTILINE,
    )
]

#: A block, with all that stands between it and the one before.
_STEP: Final = re.compile(r"(.*?)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def follow(page: Path, folder: Path, bin_folder: Path, env: Mapping[str, str]) -> list[str]:
    """Do what the page says, in the folder; return the files that it had one save.

    What a block is saved as is the last thing between backticks before it.
    """
    saved = []
    for before, language, text in _STEP.findall(page.read_text()):
        if language == "console":
            check_console(text, folder, bin_folder=bin_folder, env=env)
        else:
            [*_, name] = re.findall(r"`([\w./-]+)`", before)
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            saved.append(name)
    return saved
