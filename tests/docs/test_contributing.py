"""What CONTRIBUTING.md and the glossary say is so."""

from __future__ import annotations

import dataclasses
import os
import re
import sqlite3
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from documents import DOCS, REPOSITORY, code_blocks

from probate import Outcome, ProcessManager, ResourceOrchestrator
from probate.testing import (
    KernelView,
    KindDescription,
    check_conformance,
    conformance_cases,
)

CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"


def test_the_kind_that_is_shown_works() -> None:
    """As it stands: connects, is found by its order, interrupts, and closes at its owner's end."""
    names: dict[str, Any] = {"__name__": "databases"}
    [block] = [each for each in code_blocks(CONTRIBUTING, "python") if "DatabaseResource" in each]
    exec(compile(block, CONTRIBUTING.name, "exec"), names)
    orchestrator = ResourceOrchestrator().register(names["DatabaseResource"](), "databases")
    with ProcessManager.builder().with_resource_orchestrator(orchestrator).build() as manager:
        owner = manager.create_process("owner")
        databases = orchestrator["databases"].manager
        early, late = (databases.connect(owner.pid, ":memory:") for _ in range(2))

        databases.close(owner.pid, early)
        result = manager.terminate_process(owner.pid)

    assert result.stats.by_type == {"databases": 1}
    for connection in (early, late):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("select 1")


def test_the_tests_that_are_shown_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The locks, as they stand, keep the contract, by the tests that stand below them."""
    blocks = code_blocks(CONTRIBUTING, "python")
    [plugin] = [each for each in blocks if "class LockResource" in each]
    [tests] = [each for each in blocks if "conformance_cases" in each]
    module = types.ModuleType("acme_locks")
    monkeypatch.setitem(sys.modules, "acme_locks", module)
    names: dict[str, Any] = {"__name__": "test_locks"}
    exec(compile(plugin, "acme_locks.py", "exec"), vars(module))
    exec(compile(tests, "test_locks.py", "exec"), names)

    cases = conformance_cases(names["LOCKS"])

    assert len(cases) > 20
    for case in cases:
        names["test_locks_keep_the_contract"](case)


def test_the_other_kinds_that_are_shown_keep_the_contract(tmp_path: Path) -> None:
    """Leases, of the tutorial, and databases; as little as is described of them."""
    leases: dict[str, Any] = {"__name__": "leases"}
    databases: dict[str, Any] = {"__name__": "databases"}
    for path, names, word in (
        (DOCS / "tutorial/first-kind.md", leases, "def leases()"),
        (CONTRIBUTING, databases, "class DatabaseResource"),
    ):
        [block] = [each for each in code_blocks(path, "python") if word in each]
        exec(compile(block, path.name, "exec"), names)

    def new_path() -> Path:
        return tmp_path / os.urandom(8).hex()

    # Not asked of a connection itself: sqlite3 does not bear it while another thread closes it.
    paths: dict[int, str] = {}

    def connect(kind: Any, pid: int) -> sqlite3.Connection:
        connection: sqlite3.Connection = kind.manager.connect(pid, path := str(new_path()))
        paths[id(connection)] = path
        return connection

    check_conformance(
        KindDescription(
            kind=leases["leases"],
            make=lambda kind, pid: leases["take"](kind, pid, new_path()),
            is_alive=Path.exists,
            use=Path.read_text,
            end=Path.unlink,
        )
    )
    check_conformance(
        KindDescription(
            kind=databases["DatabaseResource"],
            make=connect,
            identify=lambda connection: paths[id(connection)],
            is_alive=lambda path: path in KernelView.take().fds.values(),
            use=lambda connection: connection.execute("select 1"),
            end=sqlite3.Connection.close,
        )
    )


def test_what_the_kit_is_said_to_take_is_what_it_takes() -> None:
    """The fields that are named, and of which it is said that they are needed."""
    text = CONTRIBUTING.read_text().partition("### Whether it keeps the contract")[2]
    text = text.partition("In this repository")[0]
    fields = {each.name: each for each in dataclasses.fields(KindDescription)}
    needed = [name for name, each in fields.items() if each.default is dataclasses.MISSING]

    assert needed == ["kind", "make", "is_alive"]
    assert "Needed are `kind`, which is what the entry point names, `make` and `is_alive`" in text
    for name in ("keep_busy", "share", "make_elsewhere", "names", "identify", "around"):
        assert name in fields
        assert f"`{name}`" in text


def test_every_target_is_listed_and_every_listed_one_is_a_target() -> None:
    """Those that `make help` shows."""
    makefile = (REPOSITORY / "Makefile").read_text()
    named = set(re.findall(r"`make (\w+)`", CONTRIBUTING.read_text()))

    assert named == set(re.findall(r"^(\w+):.*## ", makefile, re.MULTILINE)) - {"help"}


def test_the_tests_that_are_named_exist() -> None:
    """By path, and by name where one is given."""
    [block] = [each for each in code_blocks(CONTRIBUTING, "sh") if "pytest" in each]
    for path, _, name in re.findall(r"(tests/[\w/.]+)(::)?(\w+)?", block):
        assert (REPOSITORY / path).exists()
        assert not name or f"def {name}(" in (REPOSITORY / path).read_text()


def test_the_glossary_has_each_outcome() -> None:
    """In their order."""
    rows = re.findall(
        r"^\| ([A-Z_]+) \|", (REPOSITORY / "docs/glossary.md").read_text(), re.MULTILINE
    )

    assert rows == [outcome.name for outcome in Outcome]
