"""`pytest --probate-leaks`: what is left is found, whoever made it, and told with its place."""

from __future__ import annotations

import json
import re
import socket
import tempfile
import threading
from multiprocessing import shared_memory
from typing import TYPE_CHECKING

import pytest
import sysv_ipc
from leak_sessions import Session, run, write
from shared import shared

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: The line of a test that leaves something, and what is said of it.
SEEDS = {
    "listener": ("KEPT.append(socket.create_server(('127.0.0.1', 0)))", "listening"),
    "unix_path": ("bind_unix()", "path of a unix socket .*left.sock"),
    "task": ("KEPT.append(leave_task())", "asyncio task 'sleepy' of sleep"),
    "anonymous_map": ("KEPT.append(mmap.mmap(-1, 12288))", "shared map of 12288 bytes"),
    "file_map": ("KEPT.append(map_file())", "shared map of 4096 bytes: .*backing"),
    "descriptor": ("os.open('/dev/zero', os.O_RDONLY)", r"fd \d+: /dev/zero"),
    "file": ("KEPT.append(open('/dev/null'))", r"fd \d+: /dev/null"),
    "pipe": ("os.pipe()", r"fd \d+: pipe:"),
    "memfd": ("os.memfd_create('left')", r"fd \d+: /memfd:left"),
    "child": ("KEPT.append(subprocess.Popen(['sleep', '50']))", r"child process \d+: sleep 50"),
    "zombie": ("end_child()", "has ended and was not waited for"),
    "shared_memory": ("make_shared_memory()", "shared memory /dev/shm/psm_"),
    "posix_shm": ("posix('SharedMemory', size=10).close_fd()", "shared memory /probate-leaks"),
    "posix_semaphore": ("posix('Semaphore').close()", "semaphore /probate-leaks"),
    "posix_queue": ("posix('MessageQueue').close()", "message queue /probate-leaks"),
    "raw_shm": ("make_raw_shm()", "shared memory /dev/shm/probate-leaks"),
    "sysv_shm": ("sysv('SharedMemory', size=10).detach()", r"System V shared memory, id \d+"),
    "sysv_semaphore": ("sysv('Semaphore')", r"System V semaphore id \d+"),
    "sysv_queue": ("sysv('MessageQueue')", r"System V message queue id \d+"),
    "temporary_folder": ("make_folder()", "temporary folder .*/tmp"),
    "temporary_file": ("make_file()", "temporary file .*/tmp"),
    "handler": ("signal.signal(signal.SIGUSR1, handle)", r"SIGUSR1: .*SIG_DFL and is handle \("),
    "ignored": ("signal.signal(signal.SIGUSR2, signal.SIG_IGN)", "SIGUSR2: .* SIG_IGN"),
    "blocked": ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])", "SIGURG is blocked"),
    "ignored_by_c": ("ctypes.CDLL(None).signal(signal.SIGIO, 1)", "SIGIO is ignored"),
    # Last, since once there are any, what is left might be theirs to give back, and gets its time.
    "thread": ("start_thread()", "daemon thread 'worker'"),
}

#: Those of which the interpreter knows where they were acquired.
PLACED = set(SEEDS) - {
    "task", "handler", "ignored", "blocked", "ignored_by_c",
}  # fmt: skip

HELPERS = """
    import asyncio, ctypes, mmap, os, secrets, signal, socket, subprocess, tempfile
    import threading
    from multiprocessing import shared_memory
    import posix_ipc, sysv_ipc
    from undoing import UNDO

    def start_thread():
        threading.Thread(target=threading.Event().wait, name="worker", daemon=True).start()

    def leave_task():
        loop = asyncio.new_event_loop()
        task = loop.create_task(asyncio.sleep(100), name="sleepy")
        loop.run_until_complete(asyncio.sleep(0))
        return task

    def bind_unix():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind("left.sock")

    def map_file():
        with open("backing", "wb+") as file:
            file.truncate(4096)
            return mmap.mmap(file.fileno(), 4096)

    def end_child():
        if os.fork() == 0:
            os._exit(0)

    def make_shared_memory():
        made = shared_memory.SharedMemory(create=True, size=100)
        made.close()
        UNDO.append(made.unlink)

    def posix(name, **arguments):
        path = f"/probate-leaks-{secrets.token_hex(8)}"
        made = getattr(posix_ipc, name)(path, posix_ipc.O_CREX, **arguments)
        remove = {"SharedMemory": "shared_memory", "Semaphore": "semaphore"}
        remove = getattr(posix_ipc, f"unlink_{remove.get(name, 'message_queue')}")
        UNDO.append(lambda: remove(path))
        return made

    def make_raw_shm():
        path = f"/dev/shm/probate-leaks-{secrets.token_hex(8)}"
        open(path, "w").close()
        UNDO.append(lambda: os.unlink(path))

    def sysv(name, **arguments):
        made = getattr(sysv_ipc, name)(None, sysv_ipc.IPC_CREX, **arguments)
        UNDO.append(made.remove)
        return made

    def make_folder():
        UNDO.append(lambda folder=tempfile.mkdtemp(): os.rmdir(folder))

    def make_file():
        fd, path = tempfile.mkstemp()
        os.close(fd)
        UNDO.append(lambda: os.unlink(path))

    def handle(*_):
        pass
"""

CLEAN = """
    from helpers import *

    def test_nothing():
        pass

    def test_everything(tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname()), server.accept()[0]:
                pass
        thread = threading.Thread(target=str)
        thread.start()
        thread.join()
        asyncio.run(asyncio.to_thread(int))
        with mmap.mmap(-1, 4096), tempfile.TemporaryDirectory(), tempfile.NamedTemporaryFile():
            pass
        subprocess.run(["true"], check=True)
        shared = shared_memory.SharedMemory(create=True, size=10)
        shared.close()
        shared.unlink()
        for name, more in ("SharedMemory", {"size": 10}), ("Semaphore", {}), ("MessageQueue", {}):
            made = getattr(posix_ipc, name)(None, posix_ipc.O_CREX, **more)
            made.unlink()
            made.close_fd() if name == "SharedMemory" else made.close()
            made = getattr(sysv_ipc, name)(None, sysv_ipc.IPC_CREX, **more)
            if name == "SharedMemory":
                made.detach()
            made.remove()
        (tmp_path / "folder").mkdir()
        tempfile.mkdtemp(dir=tmp_path)
        before = signal.signal(signal.SIGUSR1, handle)
        signal.signal(signal.SIGUSR1, before)

    def test_garbage():
        cycle = [socket.socket(), mmap.mmap(-1, 4096)]
        cycle.append(cycle)

    def test_what_is_just_ending():
        threading.Timer(0.1, int).start()
"""


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One session in which each test leaves one thing, and between them some leave none."""

    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        write(folder, helpers=HELPERS, test_seeds=seeds(SEEDS), test_clean=CLEAN)
        session = run(folder)
        (folder / "said").write_text(json.dumps([session.returncode, session.output]))

    said = shared(tmp_path_factory, "seeded", make) / "said"
    return Session(*json.loads(said.read_text()))


def seeds(names: Iterable[str]) -> str:
    """A module of tests that each leave one thing."""
    tests = "".join(f"\n    def test_{name}():\n        {SEEDS[name][0]}\n" for name in names)
    return f"    from helpers import *\n\n    KEPT = []\n{tests}"


@pytest.mark.parametrize("name", SEEDS)
def test_what_is_left_is_found(seeded: Session, name: str) -> None:
    """Each kind of thing fails the test that leaves it, in words that say what it is."""
    assert re.search(SEEDS[name][1], seeded.left[f"test_{name}"])


@pytest.mark.parametrize("name", sorted(PLACED))
def test_where_it_was_acquired_is_told(seeded: Session, name: str) -> None:
    """By file and line of the test, from wherever else it was called."""
    assert re.search(r"since (test_seeds|helpers)\.py:\d+, in ", seeded.left[f"test_{name}"])


def test_what_is_given_back_is_no_leak(seeded: Session) -> None:
    """By a test, by the collector, or by itself a moment later; all other tests are told of."""
    assert set(seeded.left) == {f"test_{name}" for name in SEEDS}
    assert seeded.counts == {"passed": len(SEEDS) + 4, "error": len(SEEDS)}
    assert seeded.returncode == 1


def test_xdist_says_the_same(seeded: Session, tmp_path: Path) -> None:
    """In each of its workers."""
    chosen = ["listener", "thread", "descriptor", "shared_memory", "temporary_folder", "handler"]
    write(tmp_path, helpers=HELPERS, test_seeds=seeds(chosen), test_clean=CLEAN)
    session = run(tmp_path, "-n", "2", plugins=["xdist"])

    assert set(session.left) == {f"test_{name}" for name in chosen}
    assert session.counts == {"passed": len(chosen) + 4, "error": len(chosen)}


def test_strangers_are_not_blamed(tmp_path: Path) -> None:
    """What another process of the same user makes while a test runs, the test has not left."""
    made: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryDirectory() as folder:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                shared = shared_memory.SharedMemory(create=True, size=10)
                segment = sysv_ipc.SharedMemory(None, sysv_ipc.IPC_CREX, size=10)
                semaphore = sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX)
                made.extend((shared.name, tempfile.mkdtemp(dir=folder)))
                connection.send(b"x")
                connection.recv(1)
                semaphore.remove()
                segment.detach()
                segment.remove()
                shared.close()
                shared.unlink()

        thread = threading.Thread(target=serve)
        thread.start()
        write(
            tmp_path,
            test_it=f"""
                import socket, pytest

                @pytest.fixture(scope="module")
                def stranger():
                    with socket.create_connection({server.getsockname()!r}) as stranger:
                        yield stranger

                def test_it(stranger):
                    stranger.send(b"x")
                    assert stranger.recv(1) == b"x"
            """,
        )
        session = run(tmp_path)
        thread.join(30)

    assert session.counts == {"passed": 1}, session.output
    assert len(made) == 2
