"""End programs that hold a unix socket's path and a child process, and look what they leave.

    python docs/programs/ends.py

Each holds them by another way of giving back, and is ended by Ctrl-C's signal, by SIGTERM, and by
SIGKILL. The kernel is asked what is there when the program has ended; for Probate, whose reaper
does its work after that, until nothing is.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

#: What all have before: two things, and how to give them back by hand.
_MAKE: Final = """
import os, signal, socket, subprocess
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts this may ignore it

def make():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket")
    return listener, subprocess.Popen(["sleep", "1000"])

def give_back(listener, child):
    listener.close()
    os.unlink("socket")
    child.kill()
    child.wait()

def wait(os_pid):
    print(os_pid, flush=True)
    signal.pause()
"""

#: Ways to hold them.
_WAYS: Final = {
    "try/finally, ExitStack": """
from contextlib import ExitStack
with ExitStack() as stack:
    things = make()
    stack.callback(give_back, *things)
    wait(things[1].pid)
""",
    "atexit": """
import atexit
things = make()
atexit.register(give_back, *things)
wait(things[1].pid)
""",
    "weakref.finalize": """
import weakref
things = make()
finalizer = weakref.finalize(things[0], give_back, *things)
wait(things[1].pid)
""",
    "Probate": """
from probate import ProcessManager
with ProcessManager.builder().with_signals().build() as manager:
    worker = manager.spawn(["sleep", "1000"])
    manager.orchestrator["sockets"].manager.listen_unix(worker.pid, "socket")
    wait(worker.os_pid)
""",
}

#: Seconds that a reaper gets at most.
_PATIENCE: Final = 30.0


def left(way: str, number: int) -> str:
    """End a program by a signal; tell what it has left."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-c", _MAKE + _WAYS[way]]
        with subprocess.Popen(argv, cwd=folder, stdout=-1, stderr=-3, text=True) as program:
            assert program.stdout is not None
            child = os.pidfd_open(int(program.stdout.readline()))
            program.send_signal(number)
        until = time.monotonic() + (_PATIENCE if way == "Probate" else 0)
        while (found := _found(folder, child)) != "nothing" and time.monotonic() < until:
            time.sleep(0.05)
        if "child" in found:
            signal.pidfd_send_signal(child, signal.SIGKILL)
        os.close(child)
    return found


def _found(folder: str, child: int) -> str:
    things = ["path"] if Path(folder, "socket").exists() else []
    # A pidfd can be read when its process has ended (pidfd_open(2)).
    if not select.select([child], [], [], 0)[0]:
        things.append("child")
    return " and ".join(things) or "nothing"


if __name__ == "__main__":
    ends = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}
    print(f"{'left by':24}", *(f"{name:16}" for name in ends))
    for way in _WAYS:
        print(f"{way:24}", *(f"{left(way, number):16}" for number in ends.values()), flush=True)
