"""The main job: `probate demo`, on real resources of every kind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kinds import KINDS

PROBATE = Path(sys.executable).with_name("probate")
ACCOUNT = re.compile(r"^PID (\d+) cleanup: (\d+) resources freed, (\d+) bytes freed, 0 errors$")


def demo(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROBATE, "demo"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def shown() -> str:
    """What the demo prints."""
    ran = demo(PYTHONWARNINGS="error", PYTHONASYNCIODEBUG="1")

    assert ran.stderr == ""
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def test_every_process_comes_to_its_end_without_errors(shown: str) -> None:
    """Normally, by an exception, two at once, killed: each with its account line, in exact form."""
    accounts = [match for line in shown.splitlines() if (match := ACCOUNT.match(line))]

    *four, killed = accounts
    assert [int(match[2]) >= 30 for match in four] == [True] * 4
    assert int(killed[2]) == 3
    assert all(int(match[3]) > 0 for match in accounts)


def test_every_kind_is_shown_in_cleanup_order(shown: str) -> None:
    """A table per process, with something freed of every kind."""
    rows = re.findall(r"^ ?(\w+) +(\d+) +(\d+) +[\d.]+ ms", shown, re.MULTILINE)

    assert [row[0] for row in rows] == KINDS * 5
    assert [kind for kind, freed, _ in rows[: 4 * len(KINDS)] if int(freed) == 0] == []


def test_a_busy_map_was_tried_again_after_the_other_kinds(shown: str) -> None:
    """The map that a blocked thread reads into is BUSY at first, and free in the end."""
    calls = re.findall(r"^ ?mmap .* ms +(\d+) +0", shown, re.MULTILINE)

    assert [int(count) >= 2 for count in calls[:4]] == [True] * 4


def test_a_worker_tree_that_is_killed_from_outside_is_settled_unasked(shown: str) -> None:
    """Its grandchild, port and shared memory are gone, by the kernel's word."""
    assert "killed by another program: noticed and settled unasked" in shown
    assert "exit status -9" in shown


def test_the_kernel_agrees(shown: str) -> None:
    """Fds, sockets, maps, threads, dispositions as before; files as written."""
    assert "The kernel agrees, before and after" in shown
    assert "12 files as written" in shown


def test_plain_text_where_there_is_no_terminal(shown: str) -> None:
    """No escape sequences, no box drawing."""
    assert shown.isascii()


def test_a_trace_shows_the_hook_calls() -> None:
    """`PROBATE_TRACE=1` writes pluggy's call trace to standard error, and changes nothing else."""
    ran = demo(PROBATE_TRACE="1")

    assert ran.returncode == 0
    for hook in ("has_resources", "quiesce", "cleanup", "adopt"):
        assert re.search(rf"^ *{hook} \[hook\]$", ran.stderr, re.MULTILINE)
    assert "finish cleanup --> [CleanupStats(" in ran.stderr


def test_with_no_kind_at_all_it_does_not_claim_success() -> None:
    """Nothing shown, nothing proven: it says what to install, and exits 1."""
    ran = demo(PROBATE_DISABLE=",".join(KINDS))

    assert ran.returncode == 1
    assert "pip install 'probate[all]'" in ran.stdout


@pytest.mark.parametrize("kind", ["processes", "mmap", "sockets", "memory"])
def test_it_makes_do_without_any_one_kind(kind: str) -> None:
    """A kind that is not there is left out; the others come free all the same."""
    ran = demo(PROBATE_DISABLE=kind)

    assert ran.returncode == 0, ran.stdout
    assert f"not loaded: {kind} (disabled by name)" in ran.stdout
