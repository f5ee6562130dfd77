"""What installers and indexes read of each distribution; `make dist` builds and tries them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from typing import TYPE_CHECKING, Any, Final

import pytest
from documents import REPOSITORY
from packaging.metadata import Metadata
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from pathlib import Path

PLUGINS: Final = sorted(path.parent for path in REPOSITORY.glob("plugins/*/pyproject.toml"))
EXAMPLES: Final = sorted(path.parent for path in REPOSITORY.glob("examples/*/*/pyproject.toml"))
PROJECTS: Final = [REPOSITORY / "core", *PLUGINS, *EXAMPLES]


def each_project(projects: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("project", projects, ids=[path.name for path in projects])


def read(project: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    return table


@each_project(PROJECTS)
def test_a_distribution_says_who_made_it_and_what_it_is_for(project: Path) -> None:
    """Author, licence, the Pythons it has been tried on, and that it has types."""
    table = read(project)

    assert table["authors"] == [{"name": "Probate maintainers"}]
    assert table["license"] == "MIT"
    assert (project / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()
    assert {
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    } <= set(table["classifiers"])
    assert [path.name for path in project.glob("src/*/py.typed")] == ["py.typed"]


@each_project(PROJECTS)
def test_a_page_on_an_index_stands_alone(project: Path) -> None:
    """It has a heading, and no links into the repository, which would lead nowhere."""
    page = (project / "README.md").read_text()

    assert page.startswith(f"# {read(project)['name']}\n")
    assert re.findall(r"\]\((?!https?:|#)", page) == []


@each_project([*PLUGINS, *EXAMPLES])
def test_a_plugins_distribution_is_named_for_its_kind(project: Path) -> None:
    """Folder, distribution, entry point; and a range of cores, never a single one."""
    kind = project.name
    table = read(project)
    [core] = [each for each in map(Requirement, table["dependencies"]) if each.name == "probate"]

    assert table["name"] == f"probate-{kind}"
    assert list(table["entry-points"]["probate.resources"]) == [kind]
    assert {each.operator for each in core.specifier} == {">=", "<"}


def test_all_means_all() -> None:
    """The extra `all` names each plugin of this repository, and the core's page lists each."""
    named = {Requirement(each).name for each in read(PROJECTS[0])["optional-dependencies"]["all"]}
    page = (PROJECTS[0] / "README.md").read_text()
    listed = re.findall(r"^\| (probate-\w+) \|", page, re.MULTILINE)

    assert named - {"probate"} == {f"probate-{project.name}" for project in PLUGINS}
    assert listed == sorted(f"probate-{project.name}" for project in PLUGINS)


@each_project([REPOSITORY / "core", REPOSITORY / "plugins/files", *EXAMPLES])
def test_a_wheel_has_valid_metadata_and_its_package_alone(project: Path, tmp_path: Path) -> None:
    """As `packaging` judges it; with the page, the licence, every module and the template in it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=60)
    [path] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        [info] = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = Metadata.from_email(wheel.read(f"{info}/METADATA"), validate=True)
    [package] = (project / "src").iterdir()
    files = [*package.rglob("*.py"), *package.glob("cli/template/**/*"), package / "py.typed"]

    assert metadata.name == read(project)["name"]
    assert metadata.description == (project / "README.md").read_text()
    assert metadata.description_content_type == "text/markdown"
    assert f"{info}/licenses/LICENSE" in names
    assert {name for name in names if not name.startswith(f"{info}/")} == {
        f"{path.relative_to(project / 'src')}" for path in files if path.is_file()
    }
