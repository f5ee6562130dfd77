"""Options of subprocess.Popen: those that users expect work, or are refused with the reason."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from spawn_house import PATIENCE, house
from spawn_kernel import changes_since

from probate import ProcessManager, ProcessTerminatedError, ResourceOrchestrator
from probate.testing.witness import KernelView
from probate_processes.procfs import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEP = ["sleep", "1000"]


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessManager]:
    with house(monkeypatch) as manager:
        yield manager


def output_of(manager: ProcessManager, argv: list[str], **options: Any) -> Any:
    process = manager.spawn(argv, stdout=subprocess.PIPE, **options)
    manager.wait(process.pid, PATIENCE)
    assert process.stdout is not None
    with process.stdout:
        return process.stdout.read()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": True, "encoding": "utf-8"}, "\u00e4\n"),
        ({"universal_newlines": True, "encoding": "utf-8"}, "\u00e4\n"),
        ({"encoding": "latin-1"}, "\u00c3\u00a4\n"),
        ({"encoding": "ascii", "errors": "replace"}, "\ufffd\ufffd\n"),
        ({"bufsize": 0}, b"\xc3\xa4\r\n"),
        ({"text": None, "close_fds": True, "creationflags": 0}, b"\xc3\xa4\r\n"),
    ],
)
def test_pipes_of_text(manager: ProcessManager, options: Any, said: str | bytes) -> None:
    """As in Popen: what was written can be read after the end, decoded as was asked for."""
    assert output_of(manager, ["printf", "\\303\\244\\r\\n"], **options) == said


def test_text_goes_in_by_the_line(manager: ProcessManager) -> None:
    """bufsize=1 flushes at each newline; what is not flushed when it dies fails nothing."""
    process = manager.spawn(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("hello\n")
    with process.stdout:
        assert process.stdout.readline() == "hello\n"
        process.stdin.write("not flushed")
        process.send_signal(9)
        assert manager.wait(process.pid, PATIENCE).is_success
    assert process.stdin.closed


@pytest.mark.needs_root(reason="starts programs as another user")
def test_another_user(manager: ProcessManager) -> None:
    """Ids as in Popen; it is ended with its owner like any other."""
    said = output_of(
        manager, ["id"], user=65534, group=65534, extra_groups=[65533], umask=0o27, cwd="/"
    )
    assert b"uid=65534" in said
    assert b"gid=65534" in said
    assert b"65533" in said

    process = manager.spawn(SLEEP, user="nobody")
    assert process.os_pid is not None
    assert Path(f"/proc/{process.os_pid}").stat().st_uid == 65534
    assert process.terminate(0).is_success


def test_the_mask_of_new_files(manager: ProcessManager) -> None:
    """The option umask, as in Popen."""
    assert output_of(manager, ["sh", "-c", "umask"], umask=0o27) == b"0027\n"


@pytest.mark.parametrize(("restore", "ignored"), [(True, False), (False, True)])
def test_signals_that_python_ignores(manager: ProcessManager, restore: bool, ignored: bool) -> None:
    """The option restore_signals, as in Popen: SIGPIPE is back at its default, or not."""
    status = output_of(manager, ["cat", "/proc/self/status"], restore_signals=restore)
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith(b"SigIgn"))
    assert bool(int(mask, 16) & 1 << 12) == ignored


def test_what_else_is_passed_on(manager: ProcessManager) -> None:
    """The program to execute, the size of pipes, and descriptors that are inheritable."""
    script = "import sys; print(sys.orig_argv[0])"
    named = ["a name", "-c", script]
    assert output_of(manager, named, executable=sys.executable) == b"a name\n"

    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        shown = ["readlink", f"/proc/self/fd/{writer}"]
        assert output_of(manager, shown, close_fds=False).startswith(b"pipe:")
        assert output_of(manager, shown) == b""
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shell": True}, "spawn.*sh.*-c"),
        ({"start_new_session": False}, "session of its own"),
        ({"process_group": 4711}, "process group, of its own"),
        ({"preexec_fn": lambda: None}, "use user, group, extra_groups, umask, cwd or limits"),
        ({"creationflags": 1}, "for Windows"),
        ({"startupinfo": object()}, "for Windows"),
        ({"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    manager: ProcessManager, options: Any, reason: str
) -> None:
    """Before anything is started; the value that asks for nothing else is no error."""
    before, children = KernelView.take(), children_of(os.getpid())
    with pytest.raises(TypeError, match=reason):
        manager.spawn(SLEEP, **options)

    assert manager.list_processes() == []
    assert changes_since(before) == []
    assert children_of(os.getpid()) == children


def test_values_that_ask_for_what_is_done_anyway(manager: ProcessManager) -> None:
    """Those of a program that names each option of Popen."""
    options: Any = {
        "shell": False,
        "start_new_session": True,
        "process_group": None,
        "preexec_fn": None,
        "creationflags": 0,
        "startupinfo": None,
        "pipesize": -1,
    }
    assert output_of(manager, ["echo", "started"], **options) == b"started\n"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"stop": "gently"}, ValueError),
        ({"stop": None}, ValueError),
        ({"user": "no such user"}, ValueError),
        ({"extra_groups": ["no such group"]}, ValueError),
        ({"user": -2}, ValueError),
        ({"group": 1.5}, TypeError),
        ({"text": True, "universal_newlines": False}, subprocess.SubprocessError),
        ({"text": True, "encoding": "no such encoding"}, LookupError),
        ({"encoding": "ascii", "errors": "no such handler"}, LookupError),
        ({"bufsize": "none"}, TypeError),
        ({"umask": "none"}, TypeError),
    ],
)
def test_bad_values_leave_nothing(
    manager: ProcessManager, options: Any, error: type[Exception]
) -> None:
    """No process, here or for the kernel, and no descriptor; the next one starts."""
    before, children = KernelView.take(), children_of(os.getpid())
    with pytest.raises(error):
        manager.spawn(SLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)

    assert manager.list_processes() == []
    assert changes_since(before) == []
    assert children_of(os.getpid()) == children
    assert output_of(manager, ["echo", "started"]) == b"started\n"


def test_spawn_within_a_process_belongs_to_it(manager: ProcessManager) -> None:
    """It ends with the block, and is listed below its owner; outside it belongs to nobody."""
    other = manager.create_process("other")
    with manager.process("job") as job:
        inner = manager.spawn(SLEEP)
        elsewhere = manager.spawn(SLEEP, parent=other)
        context = contextvars.copy_context()
        with manager.process("deeper") as deeper:
            innermost = manager.spawn(SLEEP)
    outer = manager.spawn(SLEEP)

    assert (inner.parent, elsewhere.parent, innermost.parent) == (job, other, deeper)
    assert outer.parent is None
    assert (inner.result is not None, innermost.result is not None) == (True, True)
    assert elsewhere.result is None

    with pytest.raises(ProcessTerminatedError):
        context.run(manager.spawn, SLEEP)


def test_another_managers_process_is_no_parent(
    manager: ProcessManager, orchestrator: ResourceOrchestrator
) -> None:
    """Nor is that of another thread, whose context is its own."""
    found: list[object] = []
    with (
        ProcessManager.builder().with_resource_orchestrator(orchestrator).build() as others,
        others.process("theirs"),
    ):
        assert manager.spawn(SLEEP).parent is None
    with manager.process("job"):
        thread = threading.Thread(target=lambda: found.append(manager.spawn(SLEEP).parent))
        thread.start()
        thread.join()

    assert found == [None]
