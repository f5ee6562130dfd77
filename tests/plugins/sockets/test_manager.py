"""Making sockets for processes, and what becomes of them; the kernel is the witness."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
from threads import in_thread, wait_until_blocked

from probate import (
    CleanupStats,
    NotOwnedError,
    ProcessManager,
    ProcessTerminatedError,
    ResourceLimitExceeded,
    ResourceLimits,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from probate_sockets import SocketManager

LOOPBACK = ("127.0.0.1", 0)

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_stream_carries_data_and_ends_with_its_owner(
    manager: ProcessManager, sockets: SocketManager, host: str
) -> None:
    """Listener, both ends of a connection: made, used, and all closed by one termination."""
    process = manager.create_process("web")
    listener = sockets.listen_tcp(process.pid, (host, 0))
    client = sockets.connect_tcp(process.pid, listener.getsockname()[:2])
    server = sockets.accept(process.pid, listener)
    client.sendall(b"hello")

    assert server.recv(5) == b"hello"

    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.by_type == {"sockets": 3}
    assert [sock.fileno() for sock in (listener, client, server)] == [-1, -1, -1]


def test_a_peer_sees_end_of_file_by_default_and_a_reset_on_abort(
    manager: ProcessManager, sockets: SocketManager
) -> None:
    """Close is graceful unless asked otherwise."""
    owner, peer = manager.create_process("owner"), manager.create_process("peer")
    listener = sockets.listen_tcp(peer.pid, LOOPBACK)

    for abort in (False, True):
        client = sockets.connect_tcp(owner.pid, listener.getsockname())
        server = sockets.accept(peer.pid, listener)
        sockets.close(owner.pid, client, abort=abort)
        if abort:
            with pytest.raises(ConnectionResetError):
                server.recv(1)
        else:
            assert server.recv(1) == b""


def test_a_restart_binds_at_once_despite_time_wait(
    manager: ProcessManager, sockets: SocketManager
) -> None:
    """The active closer's port is in TIME_WAIT; a successor listens on it all the same."""
    first = manager.create_process("first")
    listener = sockets.listen_tcp(first.pid, LOOPBACK)
    address = listener.getsockname()
    client = socket.create_connection(address)
    sockets.accept(first.pid, listener)
    manager.terminate_process(first.pid)
    client.close()

    second = manager.create_process("second")

    assert sockets.listen_tcp(second.pid, address).getsockname() == address


@pytest.mark.parametrize("call", ["accept", "recv", "recvfrom"])
def test_a_blocked_thread_is_woken(
    manager: ProcessManager, sockets: SocketManager, call: str
) -> None:
    """accept/recv blocked holding a lock, so cleanup hung: shutdown wakes the blocked thread."""
    process = manager.create_process("blocked")
    listener = sockets.listen_tcp(process.pid, LOOPBACK)
    sockets.connect_tcp(process.pid, listener.getsockname())
    server = sockets.accept(process.pid, listener)
    udp = sockets.bind_udp(process.pid, LOOPBACK)
    calls: dict[str, Callable[[], Any]] = {
        "accept": lambda: sockets.accept(process.pid, listener),
        "recv": lambda: server.recv(1),
        "recvfrom": lambda: udp.recvfrom(1),
    }
    thread, outcome = in_thread(calls[call])
    wait_until_blocked(thread)

    result = manager.terminate_process(process.pid)
    thread.join(5)

    assert not thread.is_alive()
    assert result.is_success
    if call == "accept":
        assert isinstance(outcome[0], ProcessTerminatedError)


def test_one_owner_cannot_close_anothers_socket(
    manager: ProcessManager, sockets: SocketManager
) -> None:
    """B closed A's socket, its id went to C, A's cleanup closed C's: release is owner-checked."""
    a, b = manager.create_process("a"), manager.create_process("b")
    udp = sockets.bind_udp(a.pid, LOOPBACK)

    with pytest.raises(NotOwnedError, match=f"process {a.pid} does"):
        sockets.close(b.pid, udp)

    assert manager.terminate_process(b.pid).stats.resources_freed == 0
    assert udp.fileno() != -1


def test_a_socket_closed_directly_is_already_gone(
    manager: ProcessManager, sockets: SocketManager
) -> None:
    """The native object may be closed by anybody; cleanup neither counts nor complains."""
    process = manager.create_process("direct")
    sockets.bind_udp(process.pid, LOOPBACK).close()

    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.resources_freed == 0


def test_close_is_idempotent(manager: ProcessManager, sockets: SocketManager) -> None:
    """Closing twice is closing once."""
    process = manager.create_process("twice")
    udp = sockets.bind_udp(process.pid, LOOPBACK)
    sockets.close(process.pid, udp)
    sockets.close(process.pid, udp)

    assert not manager.orchestrator.has_resources(process.pid)


def test_a_connect_that_hangs_is_woken_by_termination(
    manager: ProcessManager, sockets: SocketManager
) -> None:
    """A connecting socket is owned before it connects, so that a termination finds it."""
    process = manager.create_process("connecting")
    listener = sockets.listen_tcp(process.pid, LOOPBACK, backlog=0)
    address = listener.getsockname()
    # A full backlog leaves further connections in SYN_SENT (tcp(7)).
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        assert filler.connect_ex(address) in {0, errno.EINPROGRESS}
    other = manager.create_process("client")
    thread, outcome = in_thread(lambda: sockets.connect_tcp(other.pid, address))
    wait_until_blocked(thread)

    result = manager.terminate_process(other.pid)
    thread.join(5)
    for filler in fillers:
        filler.close()

    assert isinstance(outcome[0], ProcessTerminatedError)
    assert result.is_success


@pytest.mark.parametrize(
    ("method", "argument", "error"),
    [
        ("listen_tcp", ("127.0.0.1", 65536), ValueError),
        ("listen_tcp", ("127.0.0.1", "80"), TypeError),
        ("listen_tcp", "127.0.0.1:80", TypeError),
        ("connect_tcp", (b"127.0.0.1", 80), TypeError),
        ("bind_udp", ("127.0.0.1", -1), ValueError),
        ("listen_unix", "x" * 200, ValueError),
        ("listen_unix", 7, TypeError),
        ("accept", 7, TypeError),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_acquired(
    manager: ProcessManager,
    sockets: SocketManager,
    method: str,
    argument: object,
    error: type[Exception],
) -> None:
    """A clear error, and nothing owned."""
    process = manager.create_process("bad")

    with pytest.raises(error):
        getattr(sockets, method)(process.pid, argument)

    assert not manager.orchestrator.has_resources(process.pid)


def test_a_limit_refuses_before_anything_is_acquired(
    manager: ProcessManager, sockets: SocketManager, tmp_path: Path
) -> None:
    """No path appears for a listener that the limit refuses."""
    limits = ResourceLimits(by_kind={"sockets": {"max_count": 1}})  # type: ignore[dict-item]  # as from a file
    process = manager.create_process("limited", limits=limits)
    sockets.bind_udp(process.pid, LOOPBACK)

    with pytest.raises(ResourceLimitExceeded, match="at most 1"):
        sockets.listen_unix(process.pid, tmp_path / "sock")

    assert list(tmp_path.iterdir()) == []


def test_a_terminated_owner_gets_nothing(manager: ProcessManager, sockets: SocketManager) -> None:
    """Late registration for a terminated pid leaked for ever: it is refused."""
    process = manager.create_process("dead")
    manager.terminate_process(process.pid)

    with pytest.raises(ProcessTerminatedError):
        sockets.bind_udp(process.pid, LOOPBACK)


def test_nothing_to_free(manager: ProcessManager) -> None:
    """A process without sockets has an empty account."""
    stats = manager.terminate_process(manager.create_process("idle").pid).stats

    assert stats.model_copy(update={"duration_seconds": 0}) == CleanupStats()


def test_abort_as_the_managers_default_resets_in_cleanup(manager: ProcessManager) -> None:
    """`SocketManager(abort=True)`: cleanup sends resets."""
    from probate import ResourceOrchestrator
    from probate_sockets import SocketManager, SocketResource

    resource = SocketResource(SocketManager(abort=True))
    orchestrator = ResourceOrchestrator().register(resource)
    with socket.create_server(LOOPBACK) as server:
        client = resource.manager.connect_tcp(7, server.getsockname())
        connection, _ = server.accept()
        linger = client.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)

        assert struct.unpack("ii", linger) == (0, 0)

        orchestrator.cleanup_process(7)
        with connection, pytest.raises(ConnectionResetError):
            connection.recv(1)
