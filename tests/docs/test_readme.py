"""What the README says is so."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import inspect
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from documents import REPOSITORY, code_blocks

from probate import ProcessManager, ProcessManagerBuilder, ResourceKind, hookspecs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate import ResourceOrchestrator

README = REPOSITORY / "README.md"


PAGES = [README, REPOSITORY / "core/README.md"]

#: The page's programs that can be pasted and run, with what each prints.
PROGRAMS = [
    pytest.param(program, printed, id=f"{page.parent.name}-{number}")
    for page in PAGES
    for number, (program, printed) in enumerate(
        re.findall(
            r"```python\n((?:(?!```).)*?)```(?:\n\nIt prints)?\n\n```text\n(.*?)```",
            page.read_text(),
            re.DOTALL,
        )
    )
]


@pytest.mark.parametrize(("program", "printed"), PROGRAMS)
def test_a_program_can_be_pasted_and_run(program: str, printed: str, tmp_path: Path) -> None:
    """It runs as it stands, and prints what the page says it prints."""
    script = tmp_path / "example.py"
    script.write_text(program)

    ran = subprocess.run(
        [sys.executable, "-W", "error", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    allowed = {printed}
    if "send_signal" in program:
        # On a busy machine the worker may be killed before it has started anything.
        allowed.add(printed.replace("2 resources", "1 resources"))
    assert re.sub(r"(127\.0\.0\.1:)\d+", r"\1...", ran.stdout) in allowed
    assert ran.returncode == 0, ran.stderr


def test_the_programs_are_all_that_print() -> None:
    """Each block of text is the output of the program before it."""
    assert len(PROGRAMS) == sum(len(code_blocks(page, "text")) for page in PAGES)


def test_the_programs_pass_mypy(tmp_path: Path) -> None:
    """Strictly, so that a reader who pastes one has an editor that helps; the plugin does, too."""
    blocks = [block for block in code_blocks(README, "python") if "import " in block]
    for number, block in enumerate(blocks):
        (tmp_path / f"block{number}.py").write_text(block)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path),
        str(tmp_path),
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ran.stdout.startswith("Success"), ran.stdout


def test_the_plugin_takes_less_than_20_lines() -> None:
    """A table, a release function and a kind: a reader takes it in at a glance."""
    blocks = code_blocks(README, "python")
    [plugin] = [block for block in blocks if "def leases()" in block]

    assert len([line for line in plugin.splitlines() if line.strip()]) < 20
    assert len([line for line in blocks[0].splitlines() if line.strip()]) <= 25


#: Of what stands between backticks: what is not Python, and how it is looked at.
SHELL = re.compile(r"make \w+|pip install|(PROBATE_\w+=\S+ |python -m )?probate( .*)?|--\w+")
FILES = re.compile(r"[\w./]+(\.py|\.toml|/)|\.venv|\[tool\.probate\]")
VARIABLES = re.compile(r"PROBATE_(\w+)=(.*)")


def inline_code() -> list[str]:
    """What stands between backticks outside of blocks, each once."""
    text = re.sub(r"^```.*?^```$", "", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    return list(dict.fromkeys(re.findall(r"`([^`]+)`", text)))


PYTHON = [
    code
    for code in inline_code()
    if not any(each.fullmatch(code) for each in (SHELL, FILES, VARIABLES))
]


def test_every_inline_line_of_code_runs(orchestrator: ResourceOrchestrator) -> None:
    """In their order, on a real manager: expressions, calls and names alike."""
    import probate
    import probate.settings
    from probate.models import ResourceLimits

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
            "other": other,
            "listener": orchestrator["sockets"].manager.listen_tcp(worker, ("127.0.0.1", 0)),
            "scratch": orchestrator["mmap"].manager.map_anonymous(worker, 4096),
            "connection": orchestrator["sockets"].manager.bind_udp(worker, ("127.0.0.1", 0)),
        }
        for code in PYTHON:
            if code in WORDS:
                continue
            value = eval(compile_inline(code), names)
            if asyncio.iscoroutine(value):
                value.close()
        names["connection"].close()

    assert {"cpu", "memory", "pids"} <= set(ResourceLimits.model_fields)


#: Words that are no code but names of other things: looked up where they belong.
WORDS: dict[str, Callable[[], bool]] = {
    "key": lambda: "key" in inspect.signature(ProcessManager.create_process).parameters,
    "quiesce": lambda: hasattr(hookspecs, "quiesce"),
    "cpu": lambda: True,
    "memory": lambda: True,
    "pids": lambda: True,
    "cli": lambda: has_extra("cli"),
    "all": lambda: has_extra("all"),
    "scaffold": lambda: has_extra("scaffold"),
    "settings": lambda: has_extra("settings"),
    "async with": lambda: hasattr(ProcessManager, "__aenter__"),
    "with": lambda: hasattr(ProcessManager, "__enter__"),
    "may_block=False": lambda: "may_block" in inspect.signature(ResourceKind).parameters,
    "terminate_process": lambda: hasattr(ProcessManager, "terminate_process"),
}


def compile_inline(code: str) -> Any:
    return compile(code, f"README.md: {code}", "eval")


def has_extra(name: str) -> bool:
    return name in importlib.metadata.metadata("probate").get_all("Provides-Extra", [])


@pytest.mark.parametrize("word", [code for code in PYTHON if code in WORDS])
def test_every_inline_word_is_the_name_of_something(word: str) -> None:
    """A hook, an extra, an option, a method."""
    assert WORDS[word]()


@pytest.mark.parametrize("code", [code for code in inline_code() if VARIABLES.fullmatch(code)])
def test_every_setting_that_is_shown_is_accepted(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands, in the environment."""
    from probate.settings import Settings

    name, value = code.split("=", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, shlex.split(value)[0])

    assert name.removeprefix("PROBATE_").lower() in Settings().model_fields_set


@pytest.mark.parametrize("code", [code for code in inline_code() if FILES.fullmatch(code)])
def test_every_file_that_is_named_exists(code: str) -> None:
    """In the repository, or where its own text says that it is the reader's to write."""
    readers_own = {"pyproject.toml", "acme_leases.py", "probate.toml", "[tool.probate]", ".venv"}

    assert code in readers_own or (REPOSITORY / code).exists()


def test_the_order_table_is_the_order(orchestrator: ResourceOrchestrator) -> None:
    """Kinds, priorities and distributions, from first to last, are those that are registered."""
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (probate-\w+) \|", README.read_text(), re.MULTILINE)

    assert rows == [
        (record.kind, str(record.priority), record.distribution)
        for record in orchestrator.records
        if record.status == "loaded"
    ]


def test_the_observer_in_the_readme_works(orchestrator: ResourceOrchestrator) -> None:
    """The tracing and auditing snippets run against a real orchestrator."""
    from probate import hookimpl

    names = {"orchestrator": orchestrator, "hookimpl": hookimpl}
    snippets = [block for block in code_blocks(README, "python") if "import " not in block]
    for block in snippets:
        exec(block, names)
    orchestrator["sockets"].manager.bind_udp(3, ("127.0.0.1", 0))

    result = orchestrator.cleanup_process(3)

    assert len(snippets) == 2
    assert result.stats.by_type == {"sockets": 1}
    assert orchestrator.plugin_manager.has_plugin("audit")


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    """`make demo` and `make test`, and the other targets that are named, exist."""
    named = set(re.findall(r"`?make (\w+)", README.read_text()))
    targets = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))

    assert {"demo", "test"} <= named
    assert named <= targets


def test_the_commands_table_names_the_real_commands() -> None:
    """Each command of the table exists, and each that exists is in the table."""
    from probate.cli.app import app

    named = set(re.findall(r"^\| `probate ([\w-]+)", README.read_text(), re.MULTILINE))

    assert named == set(app.commands)


def test_the_settings_table_names_all_settings() -> None:
    """Each setting, by name and by variable."""
    from probate.settings import Settings

    rows = re.findall(r"^\| (\w+) \| `PROBATE_(\w+)=", README.read_text(), re.MULTILINE)

    assert rows == [(name, name.upper()) for name in Settings.model_fields]
