"""The `probate` command, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from distributions import PLUGIN, install
from kinds import KINDS, PRIORITIES

PROBATE = Path(sys.executable).with_name("probate")


def probate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROBATE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_plugins_lists_the_kinds_in_cleanup_order() -> None:
    """For people: a line a plugin."""
    ran = probate("plugins")
    lines = [line.split() for line in ran.stdout.splitlines()[1:]]

    assert ran.returncode == 0
    assert [line[0] for line in lines] == KINDS
    assert {line[4] for line in lines} == {"loaded"}


def test_plugins_as_json_is_for_machines() -> None:
    """An array of objects, with all that a record tells."""
    records = json.loads(probate("plugins", "--json").stdout)

    assert {record["kind"]: record["priority"] for record in records} == PRIORITIES
    assert [record["kind"] for record in records] == KINDS
    assert set(records[0]) == {
        "kind",
        "distribution",
        "version",
        "priority",
        "status",
        "reason",
    }


def test_without_a_command_the_commands_are_listed() -> None:
    """It is wrong usage, answered by the help as it is."""
    ran = probate()

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == probate("--help").stdout
    assert ran.stderr.startswith("Usage: probate ")


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_kind_can_be_disabled_by_name(how: str) -> None:
    """By option or by environment; the list says so."""
    if how == "option":
        ran = probate("plugins", "--json", "--disable", "rings,mmap")
    else:
        ran = probate("plugins", "--json", PROBATE_DISABLE="rings, mmap")
    status = {record["kind"]: record["status"] for record in json.loads(ran.stdout)}

    disabled = {kind for kind in status if status[kind] == "disabled"}
    assert disabled == {"mmap", "rings"}
    assert {status[kind] for kind in KINDS if kind not in disabled} == {"loaded"}


def test_a_broken_plugin_is_reported_and_the_rest_works(tmp_path: Path) -> None:
    """`probate plugins` says what is wrong with it, where to look, and lists the others."""
    install(
        tmp_path,
        "broken",
        module="broken",
        source="import no_such_module_here",
        entry_points={"broken": "broken:Resource"},
    )

    ran = probate("plugins", PYTHONPATH=str(tmp_path))

    assert ran.returncode == 0
    assert "No module named 'no_such_module_here'" in ran.stdout
    assert "sockets" in ran.stdout


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

    ran = probate("demo", PYTHONPATH=str(tmp_path))

    assert ran.returncode == 1
    assert "is open: /etc/hostname" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["plugins", "--bogus"], "--bogus"),
        (["demo", "surplus"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str], said: str) -> None:
    """What is wrong, and where to read on."""
    ran = probate(*arguments)

    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert said in ran.stderr
    assert "--help" in ran.stderr


def test_a_wrong_setting_is_one_line_and_exit_2() -> None:
    """It is named, with what is wrong about it."""
    ran = probate("plugins", PROBATE_GRACE="soon")

    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert "settings: grace: Input should be a valid number" in ran.stderr


def test_help_and_version() -> None:
    """Every command says what it does."""
    from probate import __version__

    assert __version__ in probate("--version").stdout
    for command in ([], ["demo"], ["plugins"]):
        ran = probate(*command, "--help")

        assert ran.returncode == 0
        assert "Usage: probate" in ran.stdout
