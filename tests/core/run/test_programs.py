"""Real programs, killed as a main process, or ended by themselves: nothing of theirs is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from run_fronts import RunFront, is_alive, wait_until

#: A segment for each worker, a queue, a lock, and a manager with a socket of its own.
WORKERS = """
import multiprocessing, os, sys, time
from multiprocessing import shared_memory

def work(name, queue):
    segment = shared_memory.SharedMemory(name)
    queue.put(os.getpid())
    time.sleep(1000)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.Queue()
    segments = [shared_memory.SharedMemory(create=True, size=4096) for _ in range(2)]
    for segment in segments:
        context.Process(target=work, args=(segment.name, queue)).start()
    pids = [queue.get() for _ in segments]
    with context.Manager():
        os.write(1, " ".join(map(str, [*pids, *(each.name for each in segments)])).encode())
        os.write(1, b"\\n")
        time.sleep(1000)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path: Path, place: Path, method: str) -> None:
    """The interpreter's tracker, which is killed as well, would have waited for its orphans."""
    script = place / "workers.py"
    script.write_text(WORKERS)
    environment = {"TMPDIR": str(place)}
    with RunFront(
        sys.executable, str(script), method, state=tmp_path, environment=environment
    ) as front:
        *pids, first, second = front.line().split()
        paths = [Path("/dev/shm") / first, Path("/dev/shm") / second]
        assert all(path.exists() for path in paths)
        os.kill(front.command, signal.SIGKILL)
        account = front.account()

        assert not any(path.exists() for path in paths)
        assert not any(is_alive(int(pid)) for pid in pids)
        assert [each.name for each in place.iterdir()] == ["workers.py"]
        assert {each.outcome for each in account.settled} == {"released"}


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server")
@pytest.mark.parametrize("is_daemon", [False, True])
def test_redis(tmp_path: Path, place: Path, is_daemon: bool) -> None:
    """Its socket goes and its data stays; it has wiped its environment (setproctitle)."""
    path, dump = place / "redis.sock", place / "dump.rdb"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--dir", str(place)]
    with RunFront(
        *command, "--daemonize", "yes" if is_daemon else "no", "--save", "", state=tmp_path
    ) as front:
        if is_daemon:
            # The command has ended when it is a daemon.
            account = front.account()
            assert account.settled[0].kind == "processes"
            assert [each.outcome for each in account.settled] == ["released"] * len(account.settled)
        else:
            wait_until(path.is_socket)
            subprocess.run(["redis-cli", "-s", path, "save"], check=True, stdout=subprocess.DEVNULL)
            os.kill(front.command, signal.SIGKILL)
            account = front.account()
            assert [each.description for each in account.settled] == [f"unix socket {path}"]
            assert dump.exists()

        assert not path.exists()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux")
def test_tmux(tmp_path: Path, place: Path) -> None:
    """Its server is a daemon, with a session of its own, and what runs in it as well."""
    environment = {"TMUX_TMPDIR": str(place), "TERM": "dumb", "SHELL": "/bin/sh"}
    command = ["tmux", "-f", "/dev/null", "new-session", "-d", "sleep 1000"]
    with RunFront(*command, state=tmp_path, environment=environment) as front:
        account = front.account()

        names = {each.description.rpartition("(")[2] for each in account.settled}
        assert {"tmux: server)", "sleep)"} <= names
        assert not any(is_alive(each.os_pid or 0) for each in account.settled)
        assert not any(path.is_socket() for path in place.rglob("*"))


def test_the_same_program_outside_is_left_alone(tmp_path: Path, place: Path) -> None:
    """Of the same user, with the same names elsewhere."""
    script = place / "workers.py"
    script.write_text(WORKERS)
    outside = subprocess.Popen(
        [sys.executable, script, "fork"],
        stdout=subprocess.PIPE,
        env={"TMPDIR": str(place)},
        start_new_session=True,
    )
    assert outside.stdout is not None
    with outside:
        try:
            *pids, first, second = outside.stdout.readline().decode().split()
            paths = [Path("/dev/shm") / first, Path("/dev/shm") / second]
            with RunFront(sys.executable, str(script), "fork", state=tmp_path) as front:
                front.line()
                os.kill(front.command, signal.SIGKILL)
                front.account()

            assert all(path.exists() for path in paths)
            assert all(is_alive(int(pid)) for pid in pids)
        finally:
            # With all that it has started; its tracker does not heed it, and removes the segments.
            os.killpg(outside.pid, signal.SIGTERM)
