"""The main job: `probate demo`, on real resources of every kind."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from distributions import PLUGIN, install
from kinds import KINDS
from shared import shared
from terminals import COLUMNS, ROWS, run_in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable

PROBATE = Path(sys.executable).with_name("probate")
#: What asyncio, in debug mode, says of a machine that has no time for it.
SLOW = re.compile(r"^Executing <.*> took \d+\.\d+ seconds$")
ACCOUNT = re.compile(r"^PID (\d+) cleanup: (\d+) resources freed, (\d+) bytes freed, 0 errors$")


def demo(
    *options: str, limit: Callable[[], object] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROBATE, "demo", *options],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "COLUMNS": str(COLUMNS), **environment},
        preexec_fn=limit,
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the demo prints when it is to tell all."""

    def make(path: Path) -> None:
        ran = demo("--verbose", PYTHONWARNINGS="error", PYTHONASYNCIODEBUG="1")

        assert [line for line in ran.stderr.splitlines() if not SLOW.match(line)] == []
        assert ran.returncode == 0, ran.stdout
        path.write_text(ran.stdout)

    return shared(tmp_path_factory, "told", make).read_text()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the demo tells to machines."""

    def make(path: Path) -> None:
        ran = demo("--json")

        assert (ran.returncode, ran.stderr) == (0, "")
        path.write_text(ran.stdout)

    report: dict[str, Any] = json.loads(shared(tmp_path_factory, "report", make).read_text())
    return report


def beyond_the_screen(lines: list[str]) -> list[str]:
    """The lines that do not fit, below or at the right."""
    return [line for row, line in enumerate(lines) if row >= ROWS or len(line) > COLUMNS]


def test_the_demo_fits_on_one_screen() -> None:
    """What is held, a line a kind and a column a process, the verdict; and no more than ASCII."""
    ran = demo()
    lines = ran.stdout.splitlines()
    headings = next(line for line in lines if line.startswith("freed of"))
    names = headings.removeprefix("freed of").split()
    table = [line.split() for line in lines[lines.index(headings) + 1 :]]

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert beyond_the_screen(lines) == []
    assert ran.stdout.isascii()
    assert names == ["normal", "crashed", "twin-1", "twin-2", "workers"]
    assert [row[0] for row in table[: len(KINDS)]] == KINDS
    held = {line.split()[0]: line.split()[1] for line in lines if line.startswith("  ")}
    assert {row[0]: row[1] for row in table[: len(KINDS)]} == held
    assert ["errors", "0", "0", "0", "0", "0"] in table


def test_at_a_terminal_it_shows_how_far_it_is_and_then_only_the_screen() -> None:
    """Progress is on standard error, and gone in the end: what is left fits as well."""
    shown = run_in_terminal([PROBATE, "demo"])

    assert shown.returncode == 0, shown.lines
    assert beyond_the_screen(shown.lines) == []
    assert "demo: 'crashed' takes" in shown.written
    assert [line for line in shown.lines if "demo:" in line] == []
    assert [line for line in shown.lines if "\x1b" in line] == []
    assert any(line.startswith("The kernel agrees, before and after") for line in shown.lines)


def test_every_process_comes_to_its_end_without_errors(told: str) -> None:
    """Normally, by an exception, two at once, killed: each with its account line, in exact form."""
    accounts = [match for line in told.splitlines() if (match := ACCOUNT.match(line))]

    *four, killed = accounts
    assert [int(match[2]) >= 30 for match in four] == [True] * 4
    assert int(killed[2]) == 3
    assert all(int(match[3]) > 0 for match in accounts)


def test_every_kind_is_told_in_cleanup_order(told: str) -> None:
    """A table a process, with something freed of every kind."""
    rows = re.findall(r"^ ?(\w+) +(\d+) +(\d+) +[\d.]+ ms", told, re.MULTILINE)

    assert [row[0] for row in rows] == KINDS * 5
    assert [kind for kind, freed, _ in rows[: 4 * len(KINDS)] if int(freed) == 0] == []


def test_a_busy_map_was_tried_again_after_the_other_kinds(told: str) -> None:
    """The map that a blocked thread reads into is BUSY at first, and free in the end."""
    calls = re.findall(r"^ ?mmap .* ms +(\d+) +0", told, re.MULTILINE)

    assert [int(count) >= 2 for count in calls[:4]] == [True] * 4


def test_a_worker_tree_that_is_killed_from_outside_is_settled_unasked(told: str) -> None:
    """Its grandchild, port and shared memory are gone, by the kernel's word."""
    assert "killed by another program: noticed and settled unasked" in told
    assert "exit status -9" in told


def test_the_kernel_agrees(told: str) -> None:
    """Fds, sockets, maps, threads, dispositions as before; files as written; nothing left out."""
    assert "The kernel agrees, before and after" in told
    assert "12 files as written" in told
    assert "not here" not in told


def test_plain_text_where_there_is_no_terminal(told: str) -> None:
    """No escape sequences, no box drawing."""
    assert told.isascii()


def test_machines_are_told_all_of_it(report: dict[str, Any]) -> None:
    """Each process with what it held and freed, its account, and what the kernel says."""
    processes = report["processes"]

    assert list(report) == [
        "plugins",
        "processes",
        "remarks",
        "totals",
        "dead_hosts",
        "kernel",
        "is_success",
    ]
    assert [each["kind"] for each in report["plugins"]] == KINDS
    assert (report["is_success"], report["remarks"]) == (True, [])
    assert report["kernel"]["differences"] == []
    assert [each["ended_by"] for each in processes] == [
        "return",
        "exception",
        "terminate",
        "terminate",
        "SIGKILL",
    ]
    for each in processes:
        freed = {kind: seen["freed"] for kind, seen in each["kinds"].items() if seen["freed"]}
        assert list(each["kinds"]) == KINDS
        assert freed == each["result"]["stats"]["by_type"]
    assert report["totals"]["resources_freed"] == sum(
        each["result"]["stats"]["resources_freed"] for each in processes
    )


def test_the_demo_fails_when_the_kernel_sees_something_left(tmp_path: Path) -> None:
    """Exit 1: a plugin that opens a file for good is found out, whatever the accounts say."""
    leaky = PLUGIN.format(kind="leaky", priority=1).replace(
        "return pid in self.table",
        'kept.append(open("/etc/hostname")); return False',
    )
    install(
        tmp_path,
        "leaky",
        module="leaky",
        source=f"kept = []\n{leaky}",
        entry_points={"leaky": "leaky:Resource"},
    )

    ran = demo(PYTHONPATH=str(tmp_path))

    assert ran.returncode == 1
    assert "The kernel says otherwise: " in ran.stdout
    assert "is open: /etc/hostname" in ran.stdout
    assert beyond_the_screen(ran.stdout.splitlines()) == []


@pytest.mark.parametrize("descriptors", [16, 60])
def test_where_there_is_not_enough_it_says_so_in_a_line(descriptors: int) -> None:
    """What lacks descriptors is left out, or ends the demo: never with a traceback."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    ran = demo(limit=limit)

    assert "Traceback" not in ran.stdout + ran.stderr
    assert "Too many open files" in ran.stdout + ran.stderr
    assert [line.split()[0] for line in ran.stderr.splitlines()] in ([], ["probate:"])
    assert ("The kernel agrees" in ran.stdout) == (ran.returncode == 0)
    assert beyond_the_screen(ran.stdout.splitlines()) == []


def test_a_trace_shows_the_hook_calls() -> None:
    """`PROBATE_TRACE=1` writes each to standard error, and changes nothing else."""
    ran = demo(PROBATE_TRACE="1")

    assert ran.returncode == 0
    for hook in ("has_resources", "quiesce", "cleanup", "adopt"):
        assert re.search(rf": +{hook} \S.* pid=\d+", ran.stderr)
    assert re.search(r"cleanup sockets pid=\d+ -> \d+ freed, \d+ bytes, 0 errors in", ran.stderr)


def test_with_no_kind_at_all_it_does_not_claim_success() -> None:
    """Nothing shown, nothing proven: it says what to install, and exits 1."""
    disabled = ",".join(KINDS)
    ran = demo(PROBATE_DISABLE=disabled)
    report = json.loads(demo("--json", PROBATE_DISABLE=disabled).stdout)

    assert ran.returncode == 1
    assert "pip install 'probate[all]'" in ran.stdout
    assert (report["kernel"], report["is_success"]) == (None, False)


@pytest.mark.parametrize("kind", ["processes", "mmap", "sockets", "memory"])
def test_it_makes_do_without_any_one_kind(kind: str) -> None:
    """A kind that is not there is left out; the others come free all the same."""
    ran = demo(PROBATE_DISABLE=kind)

    assert ran.returncode == 0, ran.stdout
    assert f"not loaded: {kind} (disabled by name)" in ran.stdout


def test_a_killed_host_leaves_nothing_with_or_without_its_reaper(report: dict[str, Any]) -> None:
    """All that it had made by a name is given back, and the kernel has none of it."""
    alone, together = report["dead_hosts"]

    assert (alone["settler"], together["settler"]) == ("its reaper", "a sweep")
    named = {"processes": 1, "sockets": 1, "files": 2, "ipc": 3, "memory": 2}
    assert alone["kinds"] == together["kinds"] == named
    assert alone["owners"] == together["owners"] == ["doomed"]
    assert alone["differences"] == together["differences"] == []
