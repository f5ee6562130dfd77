"""Unix sockets whose host has died: their paths are removed, unless somebody is bound to them."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
from journal_estates import Estate

from probate import ProcessManager, RefusedResourceError
from probate.journal import name_asked_for, path_identity
from probate.journal.handles import boot_id, network_namespace
from probate.journal.users import look_again
from probate.models import ResourceRecord
from probate_sockets import SocketManager, unix

#: A listener that is made, one that is adopted, and a server of asyncio's.
ALL = Estate(
    "sockets",
    """
    import asyncio, socket, threading

    kind.listen_unix(process.pid, folder / "made")
    adopted = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    adopted.bind(str(folder / "adopted"))
    manager.orchestrator.adopt(process.pid, adopted)

    async def serve():
        server = await asyncio.start_unix_server(print, folder / "served")
        manager.orchestrator.adopt(process.pid, server)

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(serve(), loop).result()
    paths += [folder / "made", folder / "adopted", folder / "served"]
    """,
)
ONE = Estate(
    "sockets",
    """
    kind.listen_unix(process.pid, folder / "made")
    paths.append(folder / "made")
    """,
)
#: A child that goes on serving when the host is dead.
INHERITED = Estate(
    "sockets",
    """
    listener = kind.listen_unix(process.pid, folder / "made")
    paths.append(folder / "made")
    paths.append(folder / "child")
    child = os.fork()
    if child == 0:
        os.closerange(0, 3)
        time.sleep(1000)
        os._exit(0)
    (folder / "child").write_text(str(child))
    """,
)
UNNAMED = Estate(
    "sockets",
    r"""
    kind.listen_tcp(process.pid, ("127.0.0.1", 0))
    kind.listen_unix(process.pid, f"\0probate-test-{os.getpid()}")
    """,
)


@pytest.fixture(autouse=True)
def _look_anew() -> None:
    """One look at all processes serves for a moment: not for that of another test."""
    look_again()


def test_a_killed_worker(tmp_path: Path) -> None:
    """The host removes the paths at once."""
    ONE.goes_with_a_killed_worker(tmp_path)


def test_a_killed_host(tmp_path: Path) -> None:
    """The reaper removes them: of what was made, of what was adopted, of a server."""
    ALL.goes_with_a_killed_host(tmp_path)


def test_a_killed_host_and_reaper(tmp_path: Path) -> None:
    """A sweep removes them."""
    ALL.goes_with_host_and_reaper(tmp_path)


def test_what_is_closed_in_time(tmp_path: Path) -> None:
    """It leaves nothing to give back."""
    ALL.leaves_no_row_in_time(tmp_path)


def test_what_has_no_path(tmp_path: Path) -> None:
    """TCP, and abstract names, are the kernel's to take back."""
    UNNAMED.takes_no_store(tmp_path)


def test_a_successor_at_the_path_is_left_alone(tmp_path: Path) -> None:
    """A socket that serves, and one whose owner died as well."""
    for is_served in (True, False):
        folder = tmp_path / str(is_served)
        folder.mkdir()
        with ONE.host(folder) as held, socket.socket(socket.AF_UNIX) as successor:
            held.kill_both()
            held.paths[0].unlink()
            successor.bind(str(held.paths[0]))
            if is_served:
                successor.listen()
            else:
                successor.close()

            assert held.row().outcome == "already gone"
            assert held.paths[0].is_socket()


def test_another_thing_at_the_path_is_left_alone(tmp_path: Path) -> None:
    """A file that somebody has put there since."""
    with ONE.host(tmp_path) as held:
        held.kill_both()
        held.paths[0].unlink()
        held.paths[0].write_text("theirs")

        assert held.row().outcome == "already gone"
        assert held.paths[0].read_text() == "theirs"


def test_a_socket_that_a_child_still_serves_is_kept_until_it_does_not(tmp_path: Path) -> None:
    """REFUSED, with who has it; nobody is connected to for that."""
    with INHERITED.host(tmp_path) as held:
        held.kill_both()
        child = int(held.paths[1].read_text())
        pidfd = os.pidfd_open(child)
        try:
            row = held.row()
            assert (row.outcome, row.text) == ("refused", f"still bound by {child}")
            assert held.paths[0].is_socket()
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            held.host.process.wait()
            os.close(pidfd)
        deadline = time.monotonic() + 30
        while (row := held.row()).outcome == "refused":
            assert time.monotonic() < deadline
        assert row.outcome == "released"
        assert not held.paths[0].exists()


# -- without a crash: what a record says -----------------------------------------


def record_of(
    path: Path, state: Literal["intent", "confirmed"] = "confirmed", **changes: object
) -> ResourceRecord:
    """What a journal would have of the socket that is bound there."""
    identity = {"uid": os.geteuid(), **name_asked_for(str(path))}
    if state == "confirmed":
        identity |= path_identity(str(path))
    of_host = {"boot": boot_id(), "network_namespace": network_namespace()}
    return ResourceRecord(
        kind="sockets",
        description=f"unix socket {path}",
        os_pid=1,
        identity={**identity, **of_host, **changes},
        state=state,
    )


def bind(path: Path) -> None:
    """Bind and close: a socket whose owner is gone."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def test_what_was_bound_after_the_intent_is_removed(tmp_path: Path) -> None:
    """Its owner died before it could note what it had made."""
    path = tmp_path / "made"
    record = record_of(path, "intent")
    bind(path)

    assert SocketManager().reclaim(record, True) == "released"
    assert path.is_socket()
    assert SocketManager().reclaim(record, False) == "released"
    assert not path.exists()
    assert SocketManager().reclaim(record, False) == "already gone"


@pytest.mark.parametrize(
    ("seconds", "changes", "reason"),
    [
        (10, {}, "may be older"),
        (-10, {}, "a later one"),
        (0, {"clock": 0.0}, "the clock was set"),
        (0, {"uid": -1}, "belongs to user"),
        (0, {"network_namespace": 1}, "network namespace"),
    ],
)
def test_what_may_not_be_its_own_is_refused(
    tmp_path: Path, seconds: int, changes: dict[str, object], reason: str
) -> None:
    """Of an intent: what is older, or much younger, of another clock, user or network namespace."""
    path = tmp_path / "there"
    since = name_asked_for(str(path))["born_since"] + seconds * 10**9
    bind(path)
    record = record_of(path, "intent", born_since=since, **changes)

    with pytest.raises(RefusedResourceError, match=reason):
        SocketManager().reclaim(record, False)
    assert path.is_socket()


def test_a_file_at_the_path_of_an_intent_is_refused(tmp_path: Path) -> None:
    """Whatever its age: only a socket can be what was about to be bound."""
    path = tmp_path / "there"
    record = record_of(path, "intent")
    path.write_text("theirs")

    with pytest.raises(RefusedResourceError, match="no socket"):
        SocketManager().reclaim(record, False)
    assert path.read_text() == "theirs"


def test_who_is_bound_by_another_name_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a relative path, and moved since: the kernel is asked for the inode."""
    monkeypatch.chdir(tmp_path)
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind('first'); s.listen(); "
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        Path("first").rename("second")
        record = record_of(tmp_path / "second")

        with pytest.raises(RefusedResourceError, match=f"still bound by {server.pid}$"):
            SocketManager().reclaim(record, False)
        server.kill()
        server.wait()
        look_again()
        assert SocketManager().reclaim(record, False) == "released"


def test_a_connection_needs_the_path_no_more(tmp_path: Path) -> None:
    """Whose listener is closed: nobody can connect any more."""
    path = tmp_path / "made"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
    ):
        listener.bind(str(path))
        listener.listen()
        client.connect(str(path))
        connection, _ = listener.accept()
        record = record_of(path)
        with connection:
            with pytest.raises(RefusedResourceError, match="still bound"):
                SocketManager().reclaim(record, False)
            listener.close()
            look_again()

            assert SocketManager().reclaim(record, False) == "released"


def test_a_path_that_is_taken_away_as_it_is_made_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a journal, which could not tell it from a successor's; no row stays."""

    def listen(path: str, backlog: int) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(backlog)
        Path(path).unlink()
        return listener

    monkeypatch.setattr(unix, "listen", listen)
    state = tmp_path / "state"
    with ProcessManager.builder().with_journal(state, reaper=False).build() as manager:
        process = manager.create_process("worker")
        sockets = manager.orchestrator["sockets"].manager

        with pytest.raises(OSError, match="taken away") as caught:
            sockets.listen_unix(process.pid, tmp_path / "made")
        assert caught.value.errno == errno.ESTALE
        assert not sockets.table.resources(process.pid)
    assert list(state.iterdir()) == []


def test_what_cannot_be_noted_is_not_adopted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left to whoever offered it, and no row stays."""

    def identity(bound: object) -> dict[str, object]:
        raise OSError(errno.EIO, "unreadable", str(bound))

    monkeypatch.setattr(unix, "identity", identity)
    state = tmp_path / "state"
    with (
        ProcessManager.builder().with_journal(state, reaper=False).build() as manager,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        listener.bind(str(tmp_path / "theirs"))
        listener.listen()
        process = manager.create_process("worker")

        with pytest.raises(OSError, match="unreadable"):
            manager.orchestrator["sockets"].manager.adopt(process.pid, listener)
        assert (tmp_path / "theirs").is_socket()
        assert listener.fileno() != -1
    assert list(state.iterdir()) == []
