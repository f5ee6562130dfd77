"""The picture of a termination is one that took place."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from documents import DOCS, REPOSITORY, code_blocks

if TYPE_CHECKING:
    from pathlib import Path

PICTURE: Final = DOCS / "explanation/termination.svg"


def test_the_picture_is_real(tmp_path: Path) -> None:
    """The command on its page draws the very same, anew."""
    [command] = code_blocks(DOCS / "explanation/termination.md", "sh")
    program, *arguments, picture = shlex.split(command)
    assert (program, REPOSITORY / picture) == ("python", PICTURE)
    drawn = tmp_path / "drawn.svg"

    subprocess.run(
        [sys.executable, "-W", "error", *arguments, drawn], cwd=REPOSITORY, check=True, timeout=50
    )

    assert drawn.read_text() == PICTURE.read_text()


def test_the_picture_takes_its_colours_from_the_page() -> None:
    """So that it is seen in light and dark; nothing in it is fetched."""
    colours = {
        each.get(name)
        for each in ET.fromstring(PICTURE.read_text()).iter()
        for name in ("fill", "stroke")
    }

    # Two of its own, neither light nor dark.
    assert colours == {None, "currentColor", "#2f9e44", "#e8590c"}
    assert "href" not in PICTURE.read_text()
