"""What a spawned OS process starts with, what it leaves behind, and what is refused."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from spawn_house import CONTAINMENTS, PATIENCE, house, is_alive, own_cgroups, wait_for_line
from spawn_kernel import changes_since

from probate import (
    ProcessManager,
    ProcessNotFoundError,
    ProcessTerminatedError,
    ResourceLimits,
    ResourceOrchestrator,
    SchedulingPolicy,
    UnknownKindError,
)
from probate.system.osprocess import stat_of
from probate.testing.witness import KernelView
from probate_processes.procfs import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEP = ["sleep", "1000"]


@pytest.fixture(params=CONTAINMENTS)
def manager(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ProcessManager]:
    with house(monkeypatch, request.param) as manager:
        yield manager


def test_output_can_be_read_after_the_settlement_and_input_is_closed(
    manager: ProcessManager,
) -> None:
    """Pipes as in Popen: what it wrote outlives it; our end of its input does not."""
    script = "read line; echo out $line; echo err $line >&2; exit 3"
    process = manager.spawn(
        ["sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    stdin.write(b"hello\n")
    stdin.flush()
    manager.wait(process.pid, PATIENCE)

    with stdout, stderr:
        assert stdout.read() == b"out hello\n"
        assert stderr.read() == b"err hello\n"
    assert stdin.closed
    assert process.returncode == 3


def test_buffered_input_of_a_dead_worker_fails_nothing(manager: ProcessManager) -> None:
    """What was written and not flushed has no reader any more; the settlement is a success."""
    process = manager.spawn(SLEEP, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"x" * 100)
    process.send_signal(signal.SIGKILL)

    assert manager.wait(process.pid, PATIENCE).is_success
    assert process.stdin.closed


def test_without_pipes_there_are_none(manager: ProcessManager, tmp_path: Path) -> None:
    """Input is /dev/null by default, so that nothing reads the host's; files are written to."""
    with (tmp_path / "out").open("wb") as out:
        process = manager.spawn(
            ["sh", "-c", "cat; readlink /proc/self/fd/0; echo gone >&2"],
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
    manager.wait(process.pid, PATIENCE)

    assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
    assert (tmp_path / "out").read_text() == "/dev/null\n"


def test_folder_environment_and_descriptors_are_passed(
    manager: ProcessManager, tmp_path: Path
) -> None:
    """cwd, env and pass_fds as in Popen; no other descriptor of the host's gets through."""
    reader, writer = os.pipe()
    script = f'pwd; echo "$WORD-$HOME"; ls /proc/self/fd; echo passed >&{writer}'
    env = {"WORD": "given", "PATH": os.environ["PATH"]}
    try:
        process = manager.spawn(
            ["bash", "-c", script],
            stdout=subprocess.PIPE,
            cwd=tmp_path,
            env=env,
            pass_fds=[writer],
        )
        manager.wait(process.pid, PATIENCE)
        assert process.stdout is not None
        with process.stdout:
            folder, words, *fds = process.stdout.read().decode().split()

        assert folder == os.path.realpath(tmp_path)
        assert words == "given-"
        # The last one is the folder that ls reads.
        assert set(map(int, fds[:-1])) - {0, 1, 2} <= {3, writer}
        assert os.read(reader, 100) == b"passed\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_it_leads_a_session_of_its_own_and_is_named_after_its_program(
    manager: ProcessManager,
) -> None:
    """The terminal's signals do not reach it; bytes and paths name programs as well."""
    process = manager.spawn([b"/bin/sleep", "1000"])
    named = manager.spawn(SLEEP, "worker")
    assert process.os_pid is not None
    _, _, group, session, *_ = stat_of(process.os_pid)

    assert (int(group), int(session)) == (process.os_pid, process.os_pid)
    assert (process.name, named.name) == ("sleep", "worker")
    assert [each.name for each in manager.list_processes()] == ["sleep", "worker"]
    assert [each.os_pid for each in manager.list_processes()] == [process.os_pid, named.os_pid]
    assert {process.os_pid, named.os_pid} <= set(children_of(os.getpid()))


def test_a_signal_goes_to_it_and_to_nobody_once_it_is_gone(
    manager: ProcessManager, tmp_path: Path
) -> None:
    """A handler of the worker's runs; after its end, False."""
    note = tmp_path / "note"
    script = (
        f"trap 'echo usr1 > {note}; exit 5' USR1; echo > {note}.ready; while :; do sleep .01; done"
    )
    process = manager.spawn(["sh", "-c", script])
    wait_for_line(tmp_path / "note.ready")

    assert process.send_signal(signal.SIGUSR1)
    manager.wait(process.pid, PATIENCE)
    assert note.read_text() == "usr1\n"
    assert process.returncode == 5
    assert not process.send_signal(signal.SIGKILL)
    assert not manager.create_process("no OS process").send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("argv", "options", "error"),
    [
        (["/nonexistent/program"], {}, FileNotFoundError),
        (["/etc/passwd"], {}, PermissionError),
        (["/"], {}, PermissionError),
        (["sleep", "1000"], {"cwd": "/nonexistent"}, FileNotFoundError),
        (["sleep", "x" * (1 << 18)], {}, OSError),
        (["sleep", "1000"], {"pass_fds": [1 << 20]}, OSError),
        (["sleep", "1000"], {"stdout": "no file"}, (AttributeError, TypeError, ValueError)),
        (["sleep", "1000"], {"env": {"A=B": "x"}}, ValueError),
        (["sleep", "1000"], {"shell": True}, TypeError),
        ("sleep 1000", {}, TypeError),
        (b"sleep", {}, TypeError),
        ([], {}, ValueError),
        ([""], {}, OSError),
        (["sleep\0", "1"], {}, ValueError),
        (["sleep", 1000], {}, TypeError),
        (None, {}, TypeError),
        ({"sleep", "1000"}, {}, TypeError),
        (["sleep", "1000"], {"name": 5}, TypeError),
        (["sleep", "1000"], {"parent": 4711}, ProcessNotFoundError),
        (["sleep", "1000"], {"priority": 1}, ValueError),
        (["sleep", "1000"], {"weight": 2}, ValueError),
    ],
)
def test_what_cannot_be_started_is_an_error_and_leaves_nothing(
    manager: ProcessManager, argv: Any, options: Any, error: type[Exception]
) -> None:
    """No process, here or for the kernel, no descriptor, no cgroup; the next one starts."""
    parent = manager.create_process("parent")
    listed, before = manager.list_processes(), KernelView.take()
    with pytest.raises(error):
        manager.spawn(argv, **{"parent": parent, **options})

    assert manager.list_processes() == listed
    assert changes_since(before) == []
    assert own_cgroups() == []

    child = manager.spawn(["true"], parent=parent)
    manager.wait(child.pid, PATIENCE)
    assert child.returncode == 0


def test_no_descriptors_left_is_an_error_and_leaves_nothing(manager: ProcessManager) -> None:
    """EMFILE at any step of a spawn: an OSError, and as many descriptors free as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # With a limit it is contained before it runs, and no descriptor is opened for that later.
    kept = manager.spawn(SLEEP, limits=ResourceLimits(cpu=1000))
    outcomes: set[bool] = set()
    with contextlib.ExitStack() as stack:
        # Somebody to be told from what was spawned, which takes descriptors.
        stranger = stack.enter_context(subprocess.Popen(SLEEP, start_new_session=True))
        stack.callback(stranger.kill)
        # Fills the gaps, so that the limit is the room that there is.
        count = len(KernelView.take().fds) + 100
        fillers = [stack.enter_context(open(os.devnull)) for _ in range(count)]
        highest = fillers[-1].fileno()
        for room in range(1, 20):
            before = KernelView.take()
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + room, hard))
            try:
                process = manager.spawn(SLEEP, stdin=subprocess.PIPE)
            except OSError as error:
                assert error.errno == errno.EMFILE  # noqa: PT017  whichever step it was
                process = None
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            outcomes.add(process is None)
            if process is not None:
                process.terminate(0)

            assert changes_since(before) == [], f"with room for {room}"
            assert [each.pid for each in manager.list_processes()] == [kept.pid]
    assert outcomes == {True, False}
    assert is_alive(kept.os_pid or 0)


def test_a_closed_manager_spawns_nothing(manager: ProcessManager) -> None:
    """RuntimeError, as for any process; and nothing has been started."""
    children = children_of(os.getpid())
    manager.close()
    with pytest.raises(RuntimeError, match="closed"):
        manager.spawn(SLEEP)

    assert children_of(os.getpid()) == children


def test_a_dead_parent_gets_no_children(manager: ProcessManager) -> None:
    """ProcessTerminatedError names the parent; nothing is started."""
    parent = manager.create_process("parent")
    parent.terminate()
    with pytest.raises(ProcessTerminatedError, match=str(parent.pid)):
        manager.spawn(SLEEP, parent=parent)

    assert manager.list_processes() == []


def test_without_the_kind_nothing_can_be_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    """UnknownKindError names it; the manager goes on without."""
    orchestrator = ResourceOrchestrator().discover(disable=["processes"])
    with house(monkeypatch, orchestrator=orchestrator) as manager:
        with pytest.raises(UnknownKindError, match="processes"):
            manager.spawn(SLEEP)

        assert manager.list_processes() == []
        assert manager.create_process("p").terminate().is_success


def test_a_scheduler_that_is_not_there_is_an_error_before_anything_is_claimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At build; the same orchestrator then serves another manager."""
    orchestrator = ResourceOrchestrator().discover(disable=["scheduler"])
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with pytest.raises(UnknownKindError, match="scheduler"):
        builder.with_scheduler(SchedulingPolicy.FAIR).build()

    with house(monkeypatch, orchestrator=orchestrator) as manager:
        process = manager.spawn([sys.executable, "-c", "raise SystemExit(4)"])
        manager.wait(process.pid, PATIENCE)

        assert process.returncode == 4
