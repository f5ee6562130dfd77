"""What checkers and editors know of the public face: mypy and pyright, over a whole program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from checkers import run_mypy

if TYPE_CHECKING:
    from pathlib import Path

#: Each line that ends in a comment has, for either checker, an error or a type that says so.
PROGRAM = """\
from pathlib import Path

from probate import Ordering, OwnershipTable, ProcessManager, ResourceKind
from probate_sockets import SocketManager, SocketResource

with ProcessManager.builder().build() as manager:
    reveal_type(manager.orchestrator[SocketResource])  # SocketResource
    reveal_type(manager.orchestrator[SocketResource].manager)  # SocketManager
    manager.orchestrator[SocketResource].manager.listen_tpc(1)  # listen_tpc
    manager.orchestrator["sockets"].manager.anything_at_all(1)
    process = manager.create_process("p")
    process.adopt(Path(), release=Path.unlink)
    process.adopt(Path(), release=Path().unlink)
    process.adopt(Path(), release=str.upper)  # adopt
    process.callback(print, "text", end="")
    process.callback(len)  # argument

table = OwnershipTable("leases", Path.unlink)
reveal_type(table.acquire(1, Path.cwd))  # Path
reveal_type(table.give_back(1, Path()))  # Outcome
kind = ResourceKind(table, Ordering(15, before=("sockets",)))
kind_without_a_place = ResourceKind(table)  # ordering
SocketResource(SocketManager())

from probate import misspelt  # misspelt
from probate.system import unknown  # unknown
"""


def expected() -> dict[int, str]:
    """Line to what a checker has to name there."""
    lines = enumerate(PROGRAM.splitlines(), 1)
    return {number: line.rpartition("# ")[2] for number, line in lines if "  # " in line}


def check(said: dict[int, str]) -> None:
    assert said.keys() == expected().keys()
    for line, word in expected().items():
        assert word in said[line]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.timeout(180)
def test_mypy_knows_what_is_public(program: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In strict mode: a kind got by its class is of that class, and a misspelling is an error."""
    ran = run_mypy(tmp_path_factory, program.parent, "--strict", program.name)
    said: dict[int, str] = {}
    for number, text in re.findall(r"^program\.py:(\d+): \w+: (.*)$", ran.stdout, re.MULTILINE):
        said[int(number)] = said.get(int(number), "") + text

    check(said)


def test_pyright_knows_what_is_public(program: Path) -> None:
    """As mypy does, and so editors complete it."""
    pyright = shutil.which("pyright", path=os.path.dirname(sys.executable))  # noqa: PTH120  as it is
    assert pyright is not None, "pyright is in the dependency group `test`"
    ran = subprocess.run(
        [pyright, "--outputjson", "--pythonpath", sys.executable, program],
        cwd=program.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said: dict[int, str] = {}
    for each in json.loads(ran.stdout)["generalDiagnostics"]:
        line = each["range"]["start"]["line"] + 1
        said[line] = said.get(line, "") + each["message"]

    check(said)
