"""Whatever stands on a page as code is run, and whatever a page leads to is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
from documents import (
    REPOSITORY,
    Program,
    blocks,
    check_console,
    check_program,
    code_blocks,
    name_of,
    pages,
    programs,
)

if TYPE_CHECKING:
    from pathlib import Path

#: Blocks that are run in another way than as a program or a console of its own: by page and
#: language, the test that does.
ELSEWHERE: Final = {
    ("CONTRIBUTING.md", "python"): "test_contributing.py::test_the_kind_that_is_shown_works",
    ("CONTRIBUTING.md", "sh"): "test_contributing.py::test_the_tests_that_are_named_exist",
    ("README.md", "sh"): "test_readme.py::test_its_commands_are_what_they_seem",
    ("docs/comparison.md", "sh"): "test_pages.py::test_every_target_that_is_named_is_one",
    ("docs/adoption.md", "sh"): "test_pages.py::test_every_target_that_is_named_is_one",
    (
        "docs/contract.md",
        "toml",
    ): "test_contract.py::test_the_range_that_is_shown_is_that_of_this_core",
    ("docs/explanation/beside-others.md", "console"): "test_beside_others.py::test_it_is_so",
    ("docs/explanation/termination.md", "sh"): "test_termination.py::test_the_picture_is_real",
    **{
        (f"docs/howto/{page}.md", language): "test_howto.py::test_a_page_is_followed"
        for page, languages in {
            "finding-a-leak": ("console", "python"),
            "job-runner": ("console", "python"),
            "restarting-workers": ("console",),
        }.items()
        for language in languages
    },
    **{
        ("docs/howto/containers.md", each): "test_howto.py::test_the_page_on_containers_is_followed"
        for each in ("console", "python")
    },
    (
        "docs/howto/containers.md",
        "dockerfile",
    ): "test_howto.py::test_the_entry_point_of_a_container_works",
    ("docs/howto/systemd.md", "ini"): "test_howto.py::test_systemd_takes_the_unit",
    ("docs/leaks.md", "ini"): "test_leaks.py::test_the_settings_and_markers_are_taken",
    ("docs/leaks.md", "python"): "test_leaks.py::test_the_first_example_fails_as_shown",
    ("docs/leaks.md", "sh"): "test_leaks.py::test_the_first_example_fails_as_shown",
    **{
        (
            "docs/new-kind.md",
            language,
        ): "test_new_kind.py::test_the_commands_make_a_kind_that_is_tested_and_listed"
        for language in ("sh", "text")
    },
    ("docs/performance.md", "sh"): "test_examples.py::test_the_parts_of_a_termination_are_found",
    (
        "docs/reference/settings.md",
        "toml",
    ): "test_reference.py::test_the_file_that_is_shown_is_read",
    ("docs/run.md", "python"): "test_run.py::test_the_example_in_python_gives_back_what_it_says",
    ("docs/run.md", "sh"): "test_run.py::test_the_example_gives_back_what_it_says",
    ("docs/run.md", "text"): "test_run.py::test_the_example_gives_back_what_it_says",
    **{
        ("docs/tracing.md", language): "test_tracing.py::test_the_example_writes_what_is_shown"
        for language in ("sh", "python", "text")
    },
    ("docs/sweeping.md", "sh"): "test_sweeping.py::test_their_commands_exist",
    **{
        (f"plugins/{kind}/README.md", "python"): "test_kinds.py::test_what_the_page_shows_works"
        for kind in (
            *("callbacks", "files", "ipc", "memory", "mmap", "processes"),
            *("rings", "scheduler", "signals", "sockets", "tasks"),
        )
    },
    **{
        (f"docs/tutorial/{page}.md", language): "test_tutorial.py::test_the_tutorial_is_followed"
        for page in ("index", "first-host", "first-kind", "probate-run", "test-suite")
        for language in ("console", "python", "toml", "ini")
    },
}


def is_run_here(page: Path, language: str) -> bool:
    return (name_of(page), language) not in ELSEWHERE


#: What is run here: programs, and what a shell is told.
RUN = [
    pytest.param(each, id=f"{name_of(page)}-{number}")
    for page in pages()
    for number, each in enumerate(
        [
            *(programs(page) if is_run_here(page, "python") else []),
            *(code_blocks(page, "console") if is_run_here(page, "console") else []),
        ]
    )
]


@pytest.mark.parametrize("shown", RUN)
def test_what_is_shown_can_be_pasted_and_run(shown: Program | str, tmp_path: Path) -> None:
    """A program as it stands, without a warning, or commands, one after the other.

    What they print is what the page says.
    """
    if isinstance(shown, Program):
        check_program(shown, tmp_path)
    else:
        check_console(shown, tmp_path)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_is_run(page: Path) -> None:
    """As a program, with what it prints; as a console; or by a test that is named above."""
    printed = sum(each.printed is not None for each in programs(page))
    found = [language for language, _ in blocks(page)]
    others = {each for each in found if not is_run_here(page, each)}
    left = [each for each in found if each not in {*others, "python", "console"}]

    assert left == ["text"] * (printed if "text" in left else 0)
    assert re.findall(r"^```\n(?=\S)", page.read_text(), re.MULTILINE) == [] or found


def test_the_tests_that_run_them_exist() -> None:
    """And no page is named that has no such block."""
    for (page, language), test in ELSEWHERE.items():
        file, _, name = test.partition("::")

        assert f"def {name}(" in (REPOSITORY / "tests/docs" / file).read_text(), test
        if "tutorial" not in page:
            assert code_blocks(REPOSITORY / page, language), (page, language)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_link_leads_to_a_file(page: Path) -> None:
    """Relative to the page, as it is read in the repository; the site's build looks at the rest."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)

    assert [link for link in links if re.match(r"\w+:", link)] == []
    targets = [link.partition("#")[0] for link in links]
    assert [each for each in targets if each and not (page.parent / each).exists()] == []


def test_every_target_that_is_named_is_one() -> None:
    """Of the Makefile, wherever a page says `make` something."""
    targets = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for page in pages():
        text = page.read_text()
        named = re.findall(r"`make (\w+)", text)
        for block in code_blocks(page, "sh"):
            named += re.findall(r"^make (\w+)", block, re.MULTILINE)

        assert set(named) <= targets, page
