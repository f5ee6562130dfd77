"""A program that never closes its manager leaves nothing behind when it ends, of any kind."""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from pathlib import Path
from typing import Final

import pytest
from core_scripts import run_script
from hosts import Host
from spawn_house import MARKER, kill_marked

from probate.system import read_proc

#: Of each host.
ROUNDS: Final = 60 if os.environ.get("PROBATE_CHAOS") else 3

ALL_KINDS = """
import atexit, gc
from all_drivers import all_drivers
from drivers import LoopThread
from probate import ProcessManager
from probate.process.hostexit import open_managers
from probate.testing.witness import KernelView

def live():
    manager = ProcessManager.builder().with_grace(0).with_deadline(20).build()
    process = manager.create_process("careless")
    for driver in all_drivers(manager.orchestrator, loop).values():
        driver.make(process.pid)
    return manager

loop = LoopThread().__enter__()
# What starts with the first resource of a kind, and stays, is not what is looked for.
live().close()
gc.collect()
before = KernelView.take()

@atexit.register
def look():
    gc.collect()
    print(before.changes())
    print(manager.totals.errors_encountered, sorted(manager.totals.by_type))

# Once more, so that it comes before the look.
open_managers._register()
manager = live()
print(sorted(manager.count_held()))
"""


def test_nothing_of_any_kind_is_left_at_exit() -> None:
    """The kernel sees what it saw before; each kind was released, and none with an error."""
    script = run_script(ALL_KINDS, timeout=60)
    held, changes, totals = script.stdout.splitlines()

    assert script.returncode == 0
    assert changes == "[]"
    assert totals == f"0 {held}"
    assert held.count(",") == 10
    assert "ResourceWarning: a ProcessManager was not closed" in script.stderr


NAMED = """
import os, sys
from probate import ProcessManager
manager = ProcessManager.builder().with_grace(2).build()
worker = manager.spawn(["sh", "-c", "(setsid sleep 1000 & echo $!); exec sleep 1000"], stdout=-1)
shared = manager.orchestrator["memory"].manager.create_shared_memory(worker.pid, size=4096)
print(worker.os_pid, int(worker.stdout.readline()), shared.name, flush=True)
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("import asyncio; asyncio.run(asyncio.sleep(0))", 0),
        ("import threading; threading.Thread(target=manager.wait, args=(worker, 0)).start()", 0),
    ],
)
def test_workers_and_names_end_with_their_host(ending: str, code: int) -> None:
    """Child and /dev/shm name outlived a normal exit, silently; however the program ends."""
    script = run_script(NAMED.format(ending=ending), timeout=60)
    worker, descendant, name = script.stdout.split()

    assert script.returncode == code
    assert not is_alive(int(worker))
    assert not is_alive(int(descendant))
    assert not Path("/dev/shm", name).exists()


ADOPTED = """
import multiprocessing, time
from probate import ProcessManager

if __name__ == "__main__":
    manager = ProcessManager.builder().with_grace(2).build()
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    child.start()
    manager.create_process("owner").adopt(child)
    print(child.pid, flush=True)
"""


def test_an_adopted_child_of_multiprocessing_is_not_waited_for() -> None:
    """Multiprocessing joins its children at exit, for ever; by then what we own has ended."""
    script = run_script(ADOPTED, timeout=60)

    assert script.returncode == 0
    assert not Path(f"/proc/{script.stdout.strip()}/root").exists()


#: What hosts are in the midst of, again and again, when they are told to end.
MIDST = {
    "a spawn": "while True:\n    spawn()",
    "a spawn on other threads": """
for _ in range(2):
    threading.Thread(target=for_ever, args=(spawn,), daemon=True).start()
time.sleep(1000)
""",
    "an acquisition": """
owner, memory = manager.create_process("owner"), manager.orchestrator["memory"].manager
def acquire():
    memory.close(owner.pid, memory.create_shared_memory(owner.pid, size=4096))
    memory.create_shared_memory(owner.pid, f"{name}-{next(numbers)}", size=4096)
threading.Thread(target=for_ever, args=(acquire,), daemon=True).start()
for_ever(acquire)
""",
    "a termination": """
trees = manager.orchestrator["processes"].manager
def spawn_and_end():
    spawn().terminate(0)
    owner = manager.create_process("owner")
    trees.kill(owner.pid, trees.spawn(owner.pid, PROGRAM))
threading.Thread(target=for_ever, args=(spawn_and_end,), daemon=True).start()
for_ever(spawn_and_end)
""",
    "a close": """
while True:
    spawn()
    manager.close()
    manager = build()
""",
    "a loop": """
async def main():
    while True:
        async with manager.process("job"):
            await asyncio.to_thread(spawn)
            spawn()
asyncio.run(main())
""",
    "its exit": "spawn()",
}

HOST = """
import itertools
PROGRAM = ["sh", "-c", "exec >/dev/null 2>&1; sleep 1000 & sleep 1000"]
name, numbers = os.environ["PROBATE_TEST_HOUSE"], itertools.count()
def build():
    return ProcessManager.builder().with_grace(5).with_signals().build()
def spawn():
    return manager.spawn(PROGRAM)
def for_ever(function):
    while True:
        function()
manager = build()
say("ready")
"""


@pytest.mark.timeout(60 * ROUNDS)
@pytest.mark.parametrize("midst", MIDST)
def test_a_signal_in_the_midst_of_it_leaves_nothing(
    midst: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BigDL#4487: SIGTERM in the middle of a spawn: the program lived on, owned by nobody.

    What is half done is done, and taken back, before the host dies of the signal; in time.
    """
    generator = random.Random(midst)
    for count in range(ROUNDS):
        token = secrets.token_hex(8)
        number = generator.choice([signal.SIGTERM, signal.SIGHUP])
        monkeypatch.setenv(MARKER, token)
        with Host(HOST + MIDST[midst], options=["-X", "faulthandler"]) as host:
            host.wait_for("ready")
            time.sleep(generator.uniform(0, 0.15))
            host.send(number)
            if generator.random() < 0.3:
                time.sleep(generator.uniform(0, 0.02))
                host.send(number)
            code, _, errors = host.end()
        left = [path.name for path in Path("/dev/shm").glob(f"{token}-*")]

        assert (kill_marked(token), left) == ([], []), (count, errors)
        # One that has ended before it was told to is none of these.
        assert code in {-number, 0 if midst == "its exit" else -number}, (count, errors)


def is_alive(os_pid: int) -> bool:
    """Whether it still sleeps: by now the pid may be another's."""
    try:
        return b"sleep\x001000" in read_proc(f"/proc/{os_pid}/cmdline")
    except OSError:
        return False
