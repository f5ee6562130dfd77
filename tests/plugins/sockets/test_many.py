"""Many sockets of one process: closed together, and none of them differently from one alone."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes_kernel import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ProcessManager
    from probate_sockets import SocketManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

LOOPBACK: Final = ("127.0.0.1", 0)

#: As many as are asked after rather than shut down one by one, with a few threads around.
MANY: Final = 100

ROUNDS: Final = 10


def receive(sock: socket.socket) -> None:
    sock.recv(1)


def receive_with_timeout(sock: socket.socket) -> None:
    sock.settimeout(60)
    sock.recv(1)


def poll(sock: socket.socket) -> None:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    poller.poll(60_000)


def sleeps(thread: threading.Thread) -> bool:
    """Whether the kernel has a thread waiting in a system call (proc(5))."""
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2]
    return stat.split()[0] == "S"


@pytest.mark.parametrize("wait", [receive, receive_with_timeout, poll])
@pytest.mark.parametrize("idle", [0, 3, 20])
def test_a_thread_blocked_in_one_of_many_is_woken(
    manager: ProcessManager,
    sockets: SocketManager,
    wait: Callable[[socket.socket], None],
    idle: int,
) -> None:
    """However it waits, and however many threads there are that wait for something else."""
    over = threading.Event()
    idlers = [threading.Thread(target=over.wait, args=(60,)) for _ in range(idle)]
    for idler in idlers:
        idler.start()
    try:
        for round_ in range(ROUNDS):
            process = manager.create_process("many")
            owned = [sockets.bind_udp(process.pid, LOOPBACK) for _ in range(MANY)]
            target = owned[round_ * MANY // ROUNDS]

            def blocked(target: socket.socket = target) -> None:
                with contextlib.suppress(OSError):
                    wait(target)

            thread = threading.Thread(target=blocked)
            thread.start()
            eventually(lambda thread=thread: sleeps(thread), "it is blocked")  # type: ignore[misc]
            result = manager.terminate_process(process.pid)
            thread.join(10)

            assert not thread.is_alive()
            assert result.is_success
            assert result.stats.by_type == {"sockets": MANY}
    finally:
        over.set()
        for idler in idlers:
            idler.join()


def test_threads_that_enter_while_they_are_closed_do_not_stay(
    manager: ProcessManager, sockets: SocketManager
) -> None:
    """A thread that comes from one socket to the next is in some, or finds them closed."""
    for _ in range(ROUNDS):
        process = manager.create_process("many")
        owned = [sockets.bind_udp(process.pid, LOOPBACK) for _ in range(MANY)]
        has_begun = threading.Event()

        def visit(owned: list[socket.socket] = owned, begun: threading.Event = has_begun) -> None:
            for sock in owned[::-1] + owned:
                begun.set()
                with contextlib.suppress(OSError):
                    sock.settimeout(0.0005)
                    sock.recv(1)
            with contextlib.suppress(OSError):
                owned[0].settimeout(None)
                owned[0].recv(1)

        threads = [threading.Thread(target=visit) for _ in range(3)]
        for thread in threads:
            thread.start()
        has_begun.wait(10)
        result = manager.terminate_process(process.pid)
        for thread in threads:
            thread.join(10)

        assert not any(thread.is_alive() for thread in threads)
        assert result.stats.resources_freed == MANY


def test_many_of_all_sorts(manager: ProcessManager, sockets: SocketManager, tmp_path: Path) -> None:
    """Each is closed, once, and counted; peers see the end; the path is gone."""
    process = manager.create_process("many")
    peers = []
    listener = sockets.listen_tcp(process.pid, LOOPBACK)
    for _ in range(10):
        sockets.bind_udp(process.pid, LOOPBACK)
        peers.append(socket.create_connection(listener.getsockname()))
        sockets.accept(process.pid, listener)
    sockets.listen_unix(process.pid, tmp_path / "path")
    for _ in range(10):
        sockets.bind_udp(process.pid, LOOPBACK)
    owned: list[socket.socket] = [each.native for each in sockets.table.resources(process.pid)]
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.by_type == {"sockets": 32}
    assert {each.fileno() for each in owned} == {-1}
    assert not (tmp_path / "path").exists()
    for peer in peers:
        peer.settimeout(10)
        assert peer.recv(1) == b""
        peer.close()


@pytest.mark.parametrize("make", ["bind_udp", "listen_tcp"])
def test_one_of_many_closed_behind_our_back(
    manager: ProcessManager, sockets: SocketManager, make: str
) -> None:
    """It is gone already, as it is of one alone; the others are closed."""
    process = manager.create_process("many")
    owned = [getattr(sockets, make)(process.pid, LOOPBACK) for _ in range(MANY)]
    os.close(owned[MANY // 2].fileno())
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.resources_freed == MANY - 1


def test_those_closed_by_their_user_are_not_counted(
    manager: ProcessManager, sockets: SocketManager
) -> None:
    """Somebody else gave them back."""
    process = manager.create_process("many")
    owned = [sockets.bind_udp(process.pid, LOOPBACK) for _ in range(MANY)]
    for sock in owned[::7]:
        sock.close()
    result = manager.terminate_process(process.pid)

    assert result.is_success
    assert result.stats.resources_freed == MANY - len(owned[::7])


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["udp", "tcp", "stranger", "other's"]), min_size=1, max_size=30))
def test_neighbours_are_never_closed(
    manager: ProcessManager, sockets: SocketManager, sorts: list[str]
) -> None:
    """Descriptors in between, of strangers and of other processes, stay open."""
    process, other = manager.create_process("many"), manager.create_process("other")
    strangers: list[int] = []
    theirs: list[socket.socket] = []
    for sort in sorts:
        if sort == "udp":
            sockets.bind_udp(process.pid, LOOPBACK)
        elif sort == "tcp":
            sockets.listen_tcp(process.pid, LOOPBACK)
        elif sort == "stranger":
            strangers.append(os.open("/dev/null", os.O_RDONLY))
        else:
            theirs.append(sockets.bind_udp(other.pid, LOOPBACK))
    result = manager.terminate_process(process.pid)

    assert result.stats.resources_freed == sum(sort in {"udp", "tcp"} for sort in sorts)
    for fd in strangers:
        os.fstat(fd)
        os.close(fd)
    assert all(sock.getsockname() for sock in theirs)
    assert manager.terminate_process(other.pid).stats.resources_freed == len(theirs)


def plain() -> socket.socket:
    return socket.socket(type=socket.SOCK_DGRAM)


def stream() -> socket.socket:
    return socket.socket()


def listener() -> socket.socket:
    return socket.create_server(LOOPBACK)


def with_file() -> socket.socket:
    sock = plain()
    kept.append(sock.makefile("rb"))
    return sock


def closed() -> socket.socket:
    sock = plain()
    kept.append(sock)
    return sock


def polled() -> socket.socket:
    sock = plain()
    kept[0].register(sock, selectors.EVENT_READ)
    return sock


def polled_by_strangers() -> socket.socket:
    sock = plain()
    kept[1].register(sock, select.EPOLLIN)
    return sock


def shared() -> socket.socket:
    sock = plain()
    kept.append(sock.dup())
    return sock


class Subclass(socket.socket):
    """Somebody's own."""


def subclass() -> socket.socket:
    return Subclass(type=socket.SOCK_DGRAM)


#: What the odd ones are held by.
kept: list[Any] = []

ODD: Final = [
    plain,
    stream,
    listener,
    with_file,
    closed,
    polled,
    polled_by_strangers,
    shared,
    subclass,
]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(ODD), min_size=2, max_size=6))
def test_many_end_as_each_of_them_alone(
    manager: ProcessManager, makes: list[Callable[[], socket.socket]]
) -> None:
    """cpython#76219: one was released with its descriptor open, and in bulk it was closed.

    The account of many is the sum of the accounts of each, and as many descriptors are open.
    """
    accounts = []
    for together in (True, False):
        with selectors.DefaultSelector() as selector, select.epoll() as epoll:
            kept[:] = [selector, epoll]
            processes = [manager.create_process("odd") for _ in makes]
            made = []
            for make, process in zip(makes, processes, strict=True):
                sock = make()
                made.append(sock)
                (processes[0] if together else process).adopt(sock)
                if make is closed:
                    sock.close()
            results = [process.terminate() for process in processes]
            outcomes = sorted(error.outcome for result in results for error in result.errors)
            freed = sum(result.stats.resources_freed for result in results)
            open_ones = [sock.fileno() != -1 for sock in made]
            accounts.append((freed, outcomes, open_ones, len(selector.get_map())))
        # The strangers' epoll instance is gone by now, and what was busy is not any more.
        for process in processes:
            manager.orchestrator.cleanup_process(process.pid)
        for each in kept[2:]:
            each.close()
        kept.clear()

    assert accounts[0] == accounts[1]


def test_the_newest_is_closed_first_whatever_their_numbers(
    manager: ProcessManager, sockets: SocketManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are others in between, and one has a lower number than what is older."""
    process = manager.create_process("scattered")
    low = os.dup(0)
    made, between = [], []
    for _ in range(3):
        made.append(sockets.bind_udp(process.pid, LOOPBACK).fileno())
        between.append(os.dup(0))
    os.close(low)
    made.append(sockets.bind_udp(process.pid, LOOPBACK).fileno())
    closed: list[int] = []
    close = os.closerange

    def note(first: int, end: int) -> None:
        closed.extend(reversed(range(first, end)))
        close(first, end)

    monkeypatch.setattr(os, "closerange", note)
    manager.terminate_process(process.pid)
    for number in between:
        os.close(number)

    assert made[-1] < made[0]
    assert closed == made[::-1]
