"""The logger `probate`: silent until a program asks, and then it tells who died, and how."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING

import pytest
from core_scripts import run_script

from probate import ProcessManager, ResourceOrchestrator

if TYPE_CHECKING:
    from collections.abc import Iterator

UNCONFIGURED = """
import logging
from plugins_things import ThingResource, managed
{configure}
plugin = ThingResource()
with managed(plugin) as manager, manager.process("careless") as process:
    plugin.give(process.pid, "broken", lambda: 1 / 0)
"""


@pytest.mark.parametrize(("configure", "lines"), [("", 0), ("logging.basicConfig()", 2)])
def test_nothing_is_printed_unless_logging_is_configured(configure: str, lines: int) -> None:
    """Warnings do not come out on standard error behind the back of a program, as logging's do."""
    script = run_script(UNCONFIGURED.format(configure=configure))

    assert (script.returncode, script.stdout) == (0, "")
    assert len(script.stderr.splitlines()) == lines


def test_import_brings_no_logging() -> None:
    """It has to be light; the logger is made with what first logs."""
    script = run_script("import sys, probate; print('logging' in sys.modules)")

    assert script.stdout == "False\n"


@pytest.fixture
def spawning() -> Iterator[ProcessManager]:
    orchestrator = ResourceOrchestrator().discover(only=["processes"])
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_grace(5).build() as manager:
        yield manager


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", "0"), ("exit 3", "3"), ("kill -KILL $$", "-9 (SIGKILL)")],
)
def test_the_death_of_a_worker_is_logged_with_its_account(
    spawning: ProcessManager, caplog: pytest.LogCaptureFixture, script: str, status: str
) -> None:
    """At INFO, on the logger `probate`, once: whose, how it ended, and what was given back."""
    with caplog.at_level(logging.INFO, "probate"):
        worker = spawning.spawn(["sh", "-c", script], name="worker")
        result = spawning.wait(worker.pid, 30)

    told = f"process {worker.pid} 'worker': OS process {worker.os_pid} has ended, exit status"
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("probate", "INFO", f"{told} {status}: {result}")
    ]


def test_a_worker_that_was_terminated_is_logged_and_a_process_without_one_is_not(
    spawning: ProcessManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever ended it; what has no OS process behind it says nothing at INFO."""
    with caplog.at_level(logging.INFO, "probate"):
        worker = spawning.spawn(["sleep", "1000"])
        spawning.create_process("plain").terminate()
        worker.terminate()

    assert worker.returncode == -signal.SIGTERM
    [record] = caplog.records
    assert f"exit status {-signal.SIGTERM} (SIGTERM): {worker.result}" in record.getMessage()


def test_of_a_worker_that_somebody_else_has_reaped_the_status_is_not_made_up(
    spawning: ProcessManager, caplog: pytest.LogCaptureFixture
) -> None:
    """php-src#11871, bun#43203: the host reaps with waitpid(-1); nobody knows, and it says so."""
    with caplog.at_level(logging.INFO, "probate"):
        worker = spawning.spawn(["sh", "-c", "read go; exit 3"], stdin=-1)
        assert worker.os_pid is not None
        assert worker.stdin is not None
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            worker.stdin.close()
            spawning.wait(worker.pid, 30)
        finally:
            signal.signal(signal.SIGCHLD, before)
            with pytest.raises(ChildProcessError):
                os.waitpid(worker.os_pid, 0)

    assert worker.returncode is None
    assert "exit status unknown: " in caplog.records[0].getMessage()
