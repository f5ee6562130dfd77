"""Unix sockets and the paths they leave behind."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from probate_sockets import unix

if TYPE_CHECKING:
    from pathlib import Path

    from probate import ProcessManager
    from probate_sockets import SocketManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "service.sock"


def test_the_path_goes_with_its_owner(
    manager: ProcessManager, sockets: SocketManager, path: Path
) -> None:
    """red-skills#1566, crossbar#329: restart fails on a stale unix socket: we unlink our path."""
    process = manager.create_process("service")
    sockets.listen_unix(process.pid, path)

    assert stat.S_ISSOCK(path.lstat().st_mode)

    result = manager.terminate_process(process.pid)

    assert result.stats.by_type == {"sockets": 1}
    assert not path.exists()


@pytest.mark.parametrize("name", ["two\nlines", "two\rlines", "ends\n", "\n\n"])
def test_a_strangers_name_of_several_lines_is_no_ones_trouble(
    manager: ProcessManager, sockets: SocketManager, path: Path, name: str
) -> None:
    """The kernel lists it as it is, for whoever looks who else has a name."""
    process = manager.create_process("service")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(os.fspath(path.parent / name))
        sockets.listen_unix(process.pid, path)
        manager.terminate_process(process.pid)

        assert not path.exists()
        assert (path.parent / name).exists()


def test_closing_by_hand_removes_the_path(
    manager: ProcessManager, sockets: SocketManager, path: Path
) -> None:
    """The manager's close does what cleanup would."""
    process = manager.create_process("service")
    sockets.close(process.pid, sockets.listen_unix(process.pid, path))

    assert not path.exists()


def test_a_successor_that_comes_while_the_server_is_looked_for_is_left_alone(
    manager: ProcessManager,
    sockets: SocketManager,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mamori#58: the path of a live server was deleted; what was probed is what is unlinked."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    probe = unix._is_served
    process = manager.create_process("late")
    with socket.socket(socket.AF_UNIX) as successor:

        def probe_and_lose_the_race(probed: str) -> bool:
            is_served = probe(probed)
            path.unlink()
            successor.bind(os.fspath(path))
            successor.listen()
            return is_served

        monkeypatch.setattr(unix, "_is_served", probe_and_lose_the_race)
        with pytest.raises(OSError, match="in use"):
            sockets.listen_unix(process.pid, path)

        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(path))


def test_a_stale_path_is_probed_and_replaced(
    manager: ProcessManager, sockets: SocketManager, path: Path
) -> None:
    """A SIGKILLed server's path is in the way of nobody: probe before reusing."""
    script = (
        "import os, signal, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]);"
        "s.listen(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, path], check=False, timeout=30)
    stale = path.lstat().st_ino
    process = manager.create_process("successor")

    listener = sockets.listen_unix(process.pid, path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))
        connection, _ = listener.accept()
        connection.close()

    # The stale path's inode number may come round; what counts is that it is served.
    assert stale
    assert manager.terminate_process(process.pid).is_success
    assert not path.exists()


def test_a_live_servers_path_is_refused_and_kept(
    manager: ProcessManager, sockets: SocketManager, path: Path
) -> None:
    """Somebody else's live socket is never taken over."""
    first, second = manager.create_process("first"), manager.create_process("second")
    sockets.listen_unix(first.pid, path)

    with pytest.raises(OSError, match="a live server listens there"):
        sockets.listen_unix(second.pid, path)

    assert path.exists()
    assert not manager.orchestrator.has_resources(second.pid)


def test_what_is_no_socket_is_refused_and_kept(
    manager: ProcessManager, sockets: SocketManager, path: Path
) -> None:
    """A file in the way is never deleted."""
    path.write_text("precious")
    process = manager.create_process("service")

    with pytest.raises(FileExistsError, match="not a socket"):
        sockets.listen_unix(process.pid, path)

    assert path.read_text() == "precious"


def test_a_successors_path_is_left_alone(
    manager: ProcessManager, sockets: SocketManager, path: Path
) -> None:
    """mamori#58: old server deleted its successor's path; the inode number was recycled.

    Device and inode are compared while our socket, which pins its inode, is still open.
    """
    for _ in range(50):
        old = manager.create_process("old")
        sockets.listen_unix(old.pid, path)
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(os.fspath(path))
            successor.listen()
            manager.terminate_process(old.pid)

            assert path.exists()
        path.unlink()


def test_the_path_is_found_from_another_working_directory(
    manager: ProcessManager, sockets: SocketManager, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path means what it meant when it was given."""
    monkeypatch.chdir(path.parent)
    process = manager.create_process("relative")
    sockets.listen_unix(process.pid, path.name)
    monkeypatch.chdir("/")

    manager.terminate_process(process.pid)

    assert not path.exists()


def test_an_abstract_name_leaves_no_path(manager: ProcessManager, sockets: SocketManager) -> None:
    """A name that begins with NUL is outside the file system (unix(7)), and free again at once."""
    name = f"\0probate-test-{os.getpid()}"
    for _ in range(2):
        process = manager.create_process("abstract")
        listener = sockets.listen_unix(process.pid, name)

        assert listener.getsockname() == os.fsencode(name)
        assert manager.terminate_process(process.pid).is_success


def test_a_path_removed_by_others_is_no_error(
    manager: ProcessManager, sockets: SocketManager, path: Path
) -> None:
    """Somebody was tidier than we: nothing to complain about."""
    process = manager.create_process("service")
    sockets.listen_unix(process.pid, path)
    path.unlink()

    assert manager.terminate_process(process.pid).is_success
