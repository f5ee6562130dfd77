"""The kind `tmux` of examples/plugins, on a real server."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from journal_hosts import PATIENCE, JournalHost, wait_while

import probate_tmux.server
from probate import Outcome, ProcessManager, ResourceOrchestrator
from probate.settlement import sweep
from probate.testing import KindDescription, NameDescription, check_conformance
from probate_tmux import Session, TmuxError, TmuxManager, TmuxResource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate.settlement import RowAccount

pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux"),
    pytest.mark.timeout(120),
]

PID = 1


class Witness:
    """Asks tmux itself, by clients of its own."""

    def __init__(self, label: str) -> None:
        self.label = label

    def tmux(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["tmux", "-L", self.label, *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def has(self, name: str) -> bool:
        return self.tmux("has-session", "-t", f"={name}").returncode == 0

    def kill(self, name: str) -> None:
        self.tmux("kill-session", "-t", f"={name}")

    def make(self, name: str) -> None:
        # The server may just be about to end with its last session.
        while self.tmux("new-session", "-d", "-s", name, "sleep", "300").returncode:
            pass

    @contextlib.contextmanager
    def attached(self, name: str) -> Iterator[None]:
        """Attach a client, in control mode, which needs no terminal."""
        command = ["tmux", "-L", self.label, "-C", "attach", "-t", f"={name}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdout is not None
            while b"%session-changed" not in client.stdout.readline():
                assert client.poll() is None
            try:
                yield
            finally:
                client.kill()


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Witness]:
    """A server of the test's own, with its socket in a folder of its own: its path is short."""
    # Whose login shell may be one that runs nothing.
    monkeypatch.setenv("SHELL", "/bin/sh")
    with tempfile.TemporaryDirectory(prefix="probate-tmux-") as folder:
        monkeypatch.setenv("TMUX_TMPDIR", folder)
        witness = Witness(f"test-{os.getpid()}")
        yield witness
        witness.tmux("kill-server")


@pytest.fixture
def kind(witness: Witness) -> TmuxResource:
    return TmuxResource(TmuxManager(witness.label))


@pytest.mark.usefixtures("nothing_remains")
def test_sessions_keep_the_contract(witness: Witness) -> None:
    """By the conformance kit, also when their host is killed; tmux itself is the witness."""
    check_conformance(
        KindDescription[TmuxResource, Session](
            kind=lambda: TmuxResource(TmuxManager(witness.label)),
            make=lambda kind, pid: kind.manager.create_session(pid, "sleep", "300"),
            identify=lambda session: session.name,
            is_alive=witness.has,
            end=lambda session: witness.kill(session.name),
            keep_busy=lambda session: witness.attached(session.name),
            names=NameDescription(
                name=lambda session: session.name,
                is_there=witness.has,
                remove=witness.kill,
                succeed=witness.make,
                in_use=witness.attached,
            ),
            many=4,
        )
    )


def test_a_name_may_be_asked_for_and_is_not_taken_from_others(
    witness: Witness, kind: TmuxResource
) -> None:
    """What has it already stays as it is."""
    witness.make("mine")

    with pytest.raises(TmuxError, match="duplicate session: mine"):
        kind.manager.create_session(PID, "sleep", "300", name="mine")
    session = kind.manager.create_session(PID, "sleep", "300", name="job-1_b")
    kind.manager.close(PID, session)

    assert [witness.has(name) for name in ("mine", "job-1_b")] == [True, False]


@pytest.mark.parametrize("name", ["", "a.b", "a:b", "$1", "-t", "a b", "a\n", "=a", "%0", "*"])
def test_a_name_that_tmux_takes_for_something_else_is_refused(
    kind: TmuxResource, name: str
) -> None:
    """Or would change, such as a.b to a_b."""
    with pytest.raises(ValueError, match="a session is named by letters"):
        kind.manager.create_session(PID, name=name)


def test_a_command_is_run_as_it_is(witness: Witness, kind: TmuxResource) -> None:
    """No word of it is one of tmux's, or a shell's."""
    command = ["sh", "-c", "read line", ";", "kill-server", "a;", "b c", "$HOME", "#{pid}"]
    session = kind.manager.create_session(PID, *command)
    pane = witness.tmux("display-message", "-p", "-t", f"={session.name}:", "#{pane_pid}").stdout

    seen = Path(f"/proc/{int(pane)}/cmdline")
    # Until it executes it, what is forked for it is tmux.
    wait_while(lambda: b"new-session" in seen.read_bytes())

    assert seen.read_text().split("\0")[:-1] == command


def test_a_session_is_told_by_its_mark_whatever_its_name(
    witness: Witness, kind: TmuxResource
) -> None:
    """It may have another by now, and another session its own."""
    session = kind.manager.create_session(PID, "sleep", "300")
    witness.tmux("rename-session", "-t", f"={session.name}", "renamed")
    witness.make(session.name)

    assert kind.table.cleanup(PID).resources_freed == 1
    assert [witness.has(name) for name in ("renamed", session.name)] == [False, True]


def test_the_server_is_not_taken_for_an_orphan_of_the_host(
    witness: Witness, kind: TmuxResource, orchestrator: ResourceOrchestrator
) -> None:
    """Where trees of processes are ended it comes to the host; only its own sessions go with it."""
    orchestrator.register(kind)
    with ProcessManager.builder().with_resource_orchestrator(orchestrator).build() as manager:
        owner = manager.create_process("owner")
        child = manager.spawn(["sleep", "300"], parent=owner)
        session = kind.manager.create_session(owner.pid, "sleep", "300")
        manager.terminate_process(child.pid)
        assert witness.has(session.name)

        result = manager.terminate_process(owner.pid)

    assert result.stats.by_type == {"tmux": 1}
    assert not witness.has(session.name)


HOST = """
from probate import ResourceOrchestrator
from probate_tmux import TmuxManager, TmuxResource
tmux = TmuxManager(sys.argv[2])
orchestrator = ResourceOrchestrator().register(TmuxResource(tmux))
builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
manager = builder.with_journal(sys.argv[1], reaper=False).build()
owner = manager.create_process("owner")
say("ready")
tmux.create_session(owner.pid, "sleep", "300", name="late")
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv (util-linux)")
def test_a_server_that_does_not_answer_makes_no_session_for_a_dead_host(
    witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client ends with the host. What it had been asked for by then is found by a sweep."""
    witness.make("other")
    server = int(witness.tmux("display-message", "-p", "#{pid}").stdout)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    os.kill(server, signal.SIGSTOP)
    try:
        with JournalHost(HOST, tmp_path, witness.label, env=environment) as host:
            assert host.line() == "ready"
            wait_while(lambda: not clients(host.process.pid))
            [client] = clients(host.process.pid)
            pidfd = os.pidfd_open(client)
        assert select.select([pidfd], [], [], PATIENCE)[0], "its client has not ended"
        os.close(pidfd)
        with monkeypatch.context() as patch:
            patch.setattr(probate_tmux.server, "_ALLOWANCE", 0.2)
            asked_early = swept(tmp_path)
    finally:
        os.kill(server, signal.SIGCONT)
    # It has seen whatever that client had sent when it answers this one.
    witness.has("other")
    asked_late = swept(tmp_path)

    assert asked_early.outcome is Outcome.REFUSED
    assert asked_early.text == "its server cannot be asked: tmux has not answered for 0.2 s"
    assert asked_late.outcome in {Outcome.RELEASED, Outcome.ALREADY_GONE}
    assert [witness.has(name) for name in ("late", "other")] == [False, True]


def clients(host: int) -> list[int]:
    """The children of a host that ask for a session just now."""
    found = Path(f"/proc/{host}/task/{host}/children").read_text().split()
    return [
        int(each) for each in found if b"new-session" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]


def swept(state: Path) -> RowAccount:
    """What a sweep says of the one thing that a dead host has left."""
    orchestrator = ResourceOrchestrator().register(TmuxResource())
    [account] = [each for each in sweep(orchestrator, str(state)) if each.rows]
    [row] = account.rows
    return row
