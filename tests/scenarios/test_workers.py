"""Workers by the thousand, killed at random; and a server whose successor takes over at once."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from plugins_things import ThingResource
from spawn_house import CONTAINMENTS, PATIENCE, house, is_alive, wait_for_line
from threads import in_thread

from probate import OsProcess, Process, ProcessManager, ResourceOrchestrator, hookimpl
from probate.testing.witness import KernelView

#: How many workers die, and how many of them are alive at a time.
WORKERS = 2000 if os.environ.get("PROBATE_CHAOS") else 200
ALIVE = 300

#: What a host may grow by for each of its dead, in bytes: it remembers the latest 4096.
GROWTH = 16 << 10


class Census:
    """Spawns workers from several threads, and kills them from others, at random moments."""

    def __init__(self, manager: ProcessManager, things: ThingResource) -> None:
        self._manager = manager
        self._things = things
        self._room = threading.Semaphore(ALIVE)
        self._lock = threading.Lock()
        self._alive: list[Process] = []
        #: Every worker's account, its return code, and how often its thing was released.
        self.accounts: list[tuple[bool, int | None, int]] = []

    def run(self, count: int) -> None:
        """Have so many spawned, killed and settled."""
        threads = [in_thread(lambda: self._spawn(count // 4)) for _ in range(4)]
        threads += [
            in_thread(lambda seed=seed: self._kill(random.Random(seed), count // 4))  # type: ignore[misc]  # bound here
            for seed in range(4)
        ]
        for thread, _ in threads:
            thread.join()

        assert [outcome for _, outcome in threads] == [[None]] * 8

    def _spawn(self, count: int) -> None:
        for _ in range(count):
            assert self._room.acquire(timeout=PATIENCE)
            process = self._manager.spawn(["sleep", "1000"])
            with self._lock:
                self._alive.append(process)

    def _kill(self, at_random: random.Random, count: int) -> None:
        """Kill so many, each after a while, several at once; then see what has become of them."""
        while count:
            with self._lock:
                at_random.shuffle(self._alive)
                victims = [
                    self._alive.pop()
                    for _ in range(min(at_random.randrange(1, 20), len(self._alive), count))
                ]
            held = [self._things.give(victim.pid) for victim in victims]
            for victim in victims:
                os.kill(victim.os_pid or 0, signal.SIGKILL)
            for victim, thing in zip(victims, held, strict=True):
                is_success = self._manager.wait(victim.pid, PATIENCE).is_success
                with self._lock:
                    self.accounts.append((is_success, victim.returncode, thing.releases))
                self._room.release()
            count -= len(victims)
            # Sometimes at once, sometimes when there are more.
            threading.Event().wait(at_random.random() / 50)


class Counter:
    """An observer that notes whose settlement was begun, each time that it is."""

    def __init__(self) -> None:
        self.settled: list[int] = []

    @hookimpl(wrapper=True)
    def quiesce(self, pid: int) -> Any:
        self.settled.append(pid)
        return (yield)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("containment", CONTAINMENTS)
def test_workers_killed_at_random_are_each_settled_once_and_unasked(
    monkeypatch: pytest.MonkeyPatch, containment: str
) -> None:
    """Spawned and killed from threads at the same time: no zombie, nothing left, no growth."""
    children = set(psutil.Process().children())
    things, counter = ThingResource(priority=-1), Counter()
    orchestrator = ResourceOrchestrator().discover().register(things)
    orchestrator.register(counter, "counter")
    with house(monkeypatch, containment, grace=0.2, orchestrator=orchestrator) as manager:
        census = Census(manager, things)
        census.run(100)
        gc.collect()
        before, resident = KernelView.take(), psutil.Process().memory_info().rss
        census.run(WORKERS)
        assert manager.list_processes() == []
        gc.collect()
        growth = psutil.Process().memory_info().rss - resident

        assert census.accounts == [(True, -signal.SIGKILL, 1)] * (WORKERS + 100)
        assert len(counter.settled) == len(set(counter.settled)) == WORKERS + 100
        assert set(psutil.Process().children()) == children
        assert set(KernelView.take().fds) - set(before.fds) == set()
        assert growth < 8 * 2**20 + WORKERS * GROWTH


SERVER = """
import os, socket, sys, time
port, path, ready = int(sys.argv[1]), sys.argv[2], sys.argv[3]
tcp = socket.socket()
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind(("127.0.0.1", port))
tcp.listen()
unix = socket.socket(socket.AF_UNIX)
unix.bind(path)
unix.listen()
if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    # An orphan in a session of its own, which holds both listeners.
    with open(ready + ".new", "w") as file:
        file.write(f"{tcp.getsockname()[1]} {os.getpid()}\\n")
    os.rename(ready + ".new", ready)
while True:
    time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["terminated", "killed from outside"])
@pytest.mark.parametrize("containment", CONTAINMENTS)
def test_a_servers_successor_binds_port_and_path_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, containment: str, how: str
) -> None:
    """Although an orphaned child had inherited the listeners: ten generations of them."""
    path, port = str(tmp_path / "socket"), 0
    with house(monkeypatch, containment) as manager:
        for generation in range(10):
            ready = tmp_path / f"ready{generation}"
            argv = [sys.executable, "-S", "-E", "-c", SERVER, str(port), path, str(ready)]
            server = manager.spawn(argv)
            port, orphan = map(int, wait_for_line(ready).split())
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
                pass
            held = OsProcess.open(orphan)
            if how == "terminated":
                assert manager.terminate_process(server.pid).is_success
            else:
                os.kill(server.os_pid or 0, signal.SIGKILL)
                assert manager.wait(server.pid, PATIENCE).is_success

            with held:
                assert held.has_exited()
                assert not held.is_there()
            assert not is_alive(server.os_pid or 0)
            # Nobody accepts any more; the next one binds, without a retry.
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            successor = manager.create_process("successor")
            sockets = manager.orchestrator["sockets"].manager
            listener = sockets.listen_tcp(successor.pid, ("127.0.0.1", port))
            sockets.listen_unix(successor.pid, path)
            with (
                socket.create_connection(listener.getsockname(), timeout=PATIENCE),
                socket.socket(socket.AF_UNIX) as client,
            ):
                client.connect(path)
            assert stat.S_ISSOCK(Path(path).stat().st_mode)
            assert successor.terminate().is_success
            assert not Path(path).exists()
