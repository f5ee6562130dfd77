"""A reader who follows the tutorial word for word, in an empty venv, gets what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from distributions import build_wheels
from documents import DOCS, REPOSITORY, check_console, code_blocks
from tutorial import PAGES, follow

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Surroundings in which pip finds our distributions as if they had been released."""
    wheels = tmp_path_factory.mktemp("wheels")
    built = build_wheels(wheels, REPOSITORY / "core", *sorted(REPOSITORY.glob("plugins/*")))
    constraints = wheels / "constraints.txt"
    # What is ours is of this version, whatever an index has by that name.
    ours = ["==".join(each.name.split("-")[:2]) for each in built]
    pinned = (REPOSITORY / "constraints.txt").read_text()
    constraints.write_text("\n".join([pinned, *ours]))
    return {
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONSTRAINT": str(constraints),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_COMPILE": "1",
        "PYTHONDONTWRITEBYTECODE": "",  # what is used is compiled then, once
        "PIP_QUIET": "2",  # beside the -q of the page: no warnings of this machine's indexes
    }


def test_the_tutorial_is_followed(index: dict[str, str], tmp_path: Path) -> None:
    """Each file is saved, each command typed, from the making of the venv to the last test."""
    [setting_up] = code_blocks(DOCS / "tutorial/index.md", "console")
    check_console(setting_up, tmp_path, bin_folder=tmp_path / "try/bin", env=index)

    saved = [follow(page, tmp_path, tmp_path / "try/bin", index) for page in PAGES]

    assert [page.stem for page in PAGES] == [
        "first-host",
        "first-kind",
        "probate-run",
        "test-suite",
    ]
    assert sum(len(each) for each in saved) >= 12
