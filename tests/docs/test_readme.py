"""What the README says is so; and the same of the pages that go on where it ends."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import inspect
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from checkers import run_mypy
from documents import DOCS, REPOSITORY, code_blocks, name_of

from probate import Outcome, ProcessManager, ProcessManagerBuilder, ResourceKind, hookspecs
from probate.run.options import parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import ResourceOrchestrator

README = REPOSITORY / "README.md"

#: Pages on which everything between backticks is looked at.
PAGES: Final = [
    README,
    DOCS / "watching.md",
    DOCS / "reference/command-line.md",
    DOCS / "reference/settings.md",
    DOCS / "tutorial/first-kind.md",
    *(DOCS / f"explanation/{name}.md" for name in ("account", "host", "order", "ownership")),
]


@pytest.mark.timeout(180)
def test_the_programs_pass_mypy(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Strictly, so that a reader who pastes one has an editor that helps; the plugin does, too."""
    number = 0
    for page in (README, DOCS / "explanation/ownership.md", DOCS / "explanation/account.md"):
        for block in code_blocks(page, "python"):
            (tmp_path / f"block{(number := number + 1)}.py").write_text(block)
    [plugin] = [
        block
        for block in code_blocks(DOCS / "tutorial/first-kind.md", "python")
        if "def leases()" in block
    ]
    (tmp_path / "acme_leases.py").write_text(plugin)
    ran = run_mypy(tmp_path_factory, tmp_path, "--strict", ".")

    assert ran.stdout.startswith("Success"), ran.stdout


def test_it_is_short() -> None:
    """What it is, two commands, three uses, the kinds, and the way on; one screen of code."""
    text = README.read_text()
    [program] = code_blocks(README, "python")

    assert len(text.splitlines()) <= 130
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        *("Try it", "Run a command", "Write a host", "Test for leaks", "The kinds", "Read on"),
    ]


def test_the_plugin_takes_less_than_20_lines() -> None:
    """A table, a release function and a kind: a reader takes it in at a glance."""
    blocks = code_blocks(DOCS / "tutorial/first-kind.md", "python")
    [plugin] = [block for block in blocks if "def leases()" in block]

    assert len([line for line in plugin.splitlines() if line.strip()]) < 20


def test_its_commands_are_what_they_seem(tmp_path: Path) -> None:
    """Targets of make, what pip is to install, and a `probate run` that does what it says."""
    lines = [line for block in code_blocks(README, "sh") for line in block.splitlines()]
    targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            assert words[1] in targets
        elif words[:2] == ["pip", "install"]:
            for path in words[2:]:
                assert list(REPOSITORY.glob(re.sub(r"\[.*\]", "", path).removeprefix("./")))
        elif words[0] == "pytest":
            assert words[1:] == ["--probate-leaks"]  # run: tests/docs/test_leaks.py
        else:
            assert words[:2] == ["probate", "run"]
            assert parse(words[2:]).argv[0] == "sh"

    [line] = [line for line in lines if line.startswith("probate run")]
    # Its name is this test's own: others may run it as well.
    line = line.replace("/tmp/left", f"{tmp_path}/left")
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"  # noqa: PTH120
    ran = subprocess.run(
        ["sh", "-c", line],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert ran.returncode == 137
    assert "(sleep)" in ran.stderr
    assert not (tmp_path / "left").exists() or "cannot" in ran.stderr


#: Of what stands between backticks: what is not Python, and how it is looked at.
SHELL = re.compile(
    r"make \w+|pip install( .*)?|(PROBATE_\w+=\S+ |python -m )?probate( .*)?|--\w+|\. .*"
)
FILES = re.compile(r"[\w./-]+(\.py|\.toml|/|\.html)|\.venv|\[tool\.probate\]")
VARIABLES = re.compile(r"PROBATE_(\w+)=(.*)")
#: Theirs to write, for whoever reads.
READERS_OWN: Final = {
    "pyproject.toml",
    "acme-leases/pyproject.toml",
    "acme-leases/acme_leases.py",
    "lease.py",
    "test_leases.py",
    "probate.toml",
    "[tool.probate]",
    ".venv",
    "build/docs/index.html",
}


def inline_code(page: Path) -> list[str]:
    """What stands between backticks outside of blocks, each once."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return list(dict.fromkeys(re.findall(r"`([^`]+)`", text)))


def python_on(page: Path) -> list[str]:
    return [
        code
        for code in inline_code(page)
        if not any(each.fullmatch(code) for each in (SHELL, FILES, VARIABLES))
    ]


def each_of(pattern: re.Pattern[str]) -> list[str]:
    found = [code for page in PAGES for code in inline_code(page) if pattern.fullmatch(code)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_inline_line_of_code_runs(page: Path, orchestrator: ResourceOrchestrator) -> None:
    """In their order, on a real manager: expressions, calls and names alike."""
    import probate
    import probate.settings

    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_grace(0).build() as manager:
        worker, other = manager.create_process("worker"), manager.create_process("other")
        names: dict[str, Any] = {name: getattr(probate, name) for name in probate.__all__}
        names |= {
            "probate": probate,
            "contextlib": contextlib,
            "manager": manager,
            **{name: getattr(builder, name) for name in vars(ProcessManagerBuilder)},
            "orchestrator": orchestrator,
            "worker": worker,
            "agent": other,
            "other": other,
            "listener": orchestrator["sockets"].manager.listen_tcp(worker, ("127.0.0.1", 0)),
            "scratch": orchestrator["mmap"].manager.map_anonymous(worker, 4096),
            "connection": orchestrator["sockets"].manager.bind_udp(worker, ("127.0.0.1", 0)),
            "result": manager.terminate_process(manager.create_process("ended").pid),
        }
        for code in python_on(page):
            if code in WORDS:
                continue
            if code == "worker.adopt(connection)":
                worker.disown(names["connection"])
            value = eval(compile(code, f"{page.name}: {code}", "eval"), names)
            if asyncio.iscoroutine(value):
                value.close()
        names["connection"].close()


#: Words that are no code but names of other things: looked up where they belong.
WORDS: dict[str, Callable[[], bool]] = {
    "key": lambda: "key" in inspect.signature(ProcessManager.create_process).parameters,
    "quiesce": lambda: hasattr(hookspecs, "quiesce"),
    "cpu": lambda: "cpu" in limits(),
    "memory": lambda: "memory" in limits(),
    "pids": lambda: "pids" in limits(),
    "cli": lambda: has_extra("cli"),
    "all": lambda: has_extra("all"),
    "scaffold": lambda: has_extra("scaffold"),
    "settings": lambda: has_extra("settings"),
    "async with": lambda: hasattr(ProcessManager, "__aenter__"),
    "with": lambda: hasattr(ProcessManager, "__enter__"),
    "may_block=False": lambda: "may_block" in inspect.signature(ResourceKind).parameters,
    "before": lambda: "before" in ordering(),
    "after": lambda: "after" in ordering(),
    "Path.exists": lambda: True,
}


def limits() -> set[str]:
    from probate.models import ResourceLimits

    return set(ResourceLimits.model_fields)


def ordering() -> set[str]:
    from probate import Ordering

    return set(inspect.signature(Ordering).parameters)


def has_extra(name: str) -> bool:
    return name in importlib.metadata.metadata("probate").get_all("Provides-Extra", [])


@pytest.mark.parametrize("word", WORDS)
def test_every_inline_word_is_the_name_of_something(word: str) -> None:
    """A hook, an extra, an option, a method; and it stands somewhere."""
    assert WORDS[word]()
    assert any(word in python_on(page) for page in PAGES)


@pytest.mark.parametrize("code", each_of(VARIABLES))
def test_every_setting_that_is_shown_is_accepted(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands, in the environment."""
    from probate.settings import Settings

    name, value = code.split("=", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, shlex.split(value)[0])

    assert name.removeprefix("PROBATE_").lower() in Settings().model_fields_set


@pytest.mark.parametrize("code", each_of(FILES))
def test_every_file_that_is_named_exists(code: str) -> None:
    """In the repository, or where its own text says that it is the reader's to write."""
    assert code in READERS_OWN or (REPOSITORY / code).exists()


def test_the_table_of_kinds_is_their_order(orchestrator: ResourceOrchestrator) -> None:
    """Kinds, priorities and distributions, from first to last, are those that are registered."""
    loaded = [each for each in orchestrator.records if each.status == "loaded"]
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (probate-\w+) \|", README.read_text(), re.MULTILINE)

    assert rows == [(each.kind, str(each.priority), each.distribution) for each in loaded]

    expected = [(each.kind, str(each.priority)) for each in loaded]
    order = (DOCS / "explanation/order.md").read_text()
    assert re.findall(r"^\| (\w+) \| (\d+) \|", order, re.MULTILINE) == expected
    kinds = (DOCS / "reference/kinds/index.md").read_text()
    linked = re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| (\d+) \|", kinds, re.MULTILINE)
    assert linked == expected


def test_what_an_outcome_means_for_the_account() -> None:
    """As the table has it: whether it is an error, and stays owned."""
    text = (DOCS / "explanation/account.md").read_text()
    rows = re.findall(r"^\| ([A-Z_]+) \| (yes|no) \| (yes|no) \| (yes|no|by)", text, re.MULTILINE)

    assert rows == [
        (
            each.name,
            "yes" if each is Outcome.RELEASED else "no",
            "yes" if each.is_error else "no",
            "by" if each is Outcome.TRANSFERRED else "yes" if each.stays_owned else "no",
        )
        for each in Outcome
    ]
