"""What the how-to pages say works: those are followed here that are more than single programs."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import DOCS, REPOSITORY, code_blocks
from systemd_units import check_unit
from tutorial import follow

PAGES = DOCS / "howto"
BIN = Path(sys.executable).parent

#: What makes a namespace of process ids, as a container has one.
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout, as far as the pages go: the examples are there."""
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    return tmp_path


@pytest.fixture
def containers() -> None:
    """Skips where this user may have no namespace of process ids."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespace can be made here: unshare(1) is refused, or not there")


@pytest.mark.parametrize("page", ["job-runner", "restarting-workers", "finding-a-leak"])
def test_a_page_is_followed(page: str, folder: Path) -> None:
    """Each file is saved, each command typed, and answers what the page says."""
    follow_page(page, folder)


@pytest.mark.usefixtures("containers")
def test_the_page_on_containers_is_followed(folder: Path) -> None:
    """In a namespace of process ids, as a container has one."""
    follow_page("containers", folder)


def follow_page(page: str, folder: Path) -> None:
    state = {"PROBATE_STATE": str(folder / "state"), "COLUMNS": "200"}
    follow(PAGES / f"{page}.md", folder, BIN, state)


@pytest.mark.usefixtures("containers")
def test_the_entry_point_of_a_container_works(folder: Path) -> None:
    """As its first process, `probate run` has the program as its own exit status, and ends it."""
    [dockerfile] = code_blocks(PAGES / "containers.md", "dockerfile")
    lists = re.findall(r"^[A-Z]+ (\[.*\])$", dockerfile, re.MULTILINE)
    words = [json.loads(each) for each in lists]
    [program] = code_blocks(PAGES / "containers.md", "python")
    (folder / "host.py").write_text(program)
    ran = subprocess.run(
        [*NAMESPACE, *(word for each in words for word in each)],
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert len(words) == dockerfile.count("\n") == 2
    assert re.fullmatch(r"runs as [2-9]\d*\ngiven back\n", ran.stdout), ran.stderr
    assert ran.returncode == 143


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """As far as `systemd-analyze verify` looks, where there is one; its commands are there."""
    [unit] = code_blocks(PAGES / "systemd.md", "ini")
    parsed = configparser.ConfigParser(interpolation=None, strict=True)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation has it
    parsed.read_string(unit)
    folder = parsed["Service"]["ExecStart"].rpartition("/")[0].split()[0].rpartition("/")[0]
    assert {line.split()[0] for line in re.findall(rf"{folder}/(.*)", unit)} == {
        "probate",
        "python",
    }
    assert f"/var/lib/{parsed['Service']['StateDirectory']}" in parsed["Service"]["Environment"]

    path = tmp_path / "probate-host.service"
    path.write_text(unit.replace(folder, str(BIN)))
    check_unit(path)


def test_every_page_is_in_the_table() -> None:
    """And each is asked for by a question."""
    text = (PAGES / "index.md").read_text()
    pages = {path.stem for path in PAGES.glob("*.md")} - {"index"}

    assert set(re.findall(r"^\| .*\? \| \[[^]]+\]\((.+)\.md\)", text, re.MULTILINE)) == pages
    assert set(text.partition("{toctree}")[2].split()[1:-1]) == pages


def test_every_example_is_explained() -> None:
    """On one page, which shows it, too."""
    for path in (REPOSITORY / "examples").glob("*.py"):
        shown = [
            page.stem
            for page in PAGES.glob("*.md")
            if f"](../../examples/{path.name})" in page.read_text()
            and f"{{literalinclude}} ../../examples/{path.name}" in page.read_text()
        ]
        assert len(shown) == 1, path
