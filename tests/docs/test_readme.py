"""What the README says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from documents import REPOSITORY, code_blocks

if TYPE_CHECKING:
    from pathlib import Path

    from probate import ResourceOrchestrator

README = REPOSITORY / "README.md"


@pytest.mark.parametrize("page", ["README.md", "core/README.md"])
def test_the_example_can_be_pasted_and_run(page: str, tmp_path: Path) -> None:
    """The first example runs as it stands, and prints what the page says it prints."""
    script = tmp_path / "example.py"
    script.write_text(code_blocks(REPOSITORY / page, "python")[0])

    ran = subprocess.run(
        [sys.executable, "-W", "error", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    printed = re.sub(r"(127\.0\.0\.1:)\d+", r"\1...", ran.stdout)

    assert printed == code_blocks(REPOSITORY / page, "text")[0]
    assert ran.returncode == 0


def test_the_example_takes_20_lines_or_so() -> None:
    """An example that a reader takes in at a glance."""
    example, plugin = code_blocks(README, "python")[:2]

    assert len([line for line in example.splitlines() if line.strip()]) <= 22
    assert len([line for line in plugin.splitlines() if line.strip()]) <= 25


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
    for block in code_blocks(README, "python")[2:]:
        exec(block, names)
    orchestrator["sockets"].manager.bind_udp(3, ("127.0.0.1", 0))

    result = orchestrator.cleanup_process(3)

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
