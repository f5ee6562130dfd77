"""Real programs with workers, which make things by name: what each is, and how it is run.

Each gets a folder of its own, with a FIFO, `go`, whose end of reading means that it may end. Its
processes each write a line of JSON, as soon as they are at work: the paths that are there now and
are to be gone at the end, and the ports that they listen at.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from pathlib import Path

#: What all of them begin with. FIFO and standard output are in their folder, and the data that
#: is to be kept.
_COMMON: Final = """
import json, os, socket, sys
PLACE = os.environ["PLACE"]

def tell(paths=(), ports=()):
    said = json.dumps({"paths": list(paths), "ports": list(ports)}) + "\\n"
    fd = os.open(f"{PLACE}/said", os.O_WRONLY | os.O_APPEND)
    os.write(fd, said.encode())
    os.close(fd)

def wait():
    with open(f"{PLACE}/go") as go:
        go.read()

def keep(name):
    with open(f"{PLACE}/{name}", "w") as file:
        file.write("data")
"""

_JOBLIB: Final = """
import numpy
from joblib import Parallel, delayed

def work(array):
    tell([array.filename, os.path.dirname(array.filename)])
    wait()
    return float(array.sum())

if __name__ == "__main__":
    keep("data")
    arrays = [numpy.ones(1000) for _ in range(2)]
    done = Parallel(n_jobs=2, max_nbytes=100)(delayed(work)(array) for array in arrays)
    assert done == [1000, 1000]
"""

_GUNICORN: Final = """
def post_worker_init(worker):
    keep("data")
    ports = [each.sock.getsockname()[1] for each in worker.sockets if each.FAMILY == socket.AF_INET]
    tell([f"{PLACE}/web.sock"], ports)

async def app(scope, receive, send):
    raise AssertionError("nobody asks it")

bind = [f"unix:{PLACE}/web.sock", "127.0.0.1:0"]
workers = 2
worker_class = "uvicorn_worker.UvicornWorker"
loglevel = "error"
"""

_XDIST: Final = """
from multiprocessing.shared_memory import SharedMemory
import pytest

@pytest.mark.parametrize("number", [0, 1])
def test_it(number, tmp_path):
    keep(f"data-{os.environ['PYTEST_XDIST_WORKER']}")
    memory = SharedMemory(create=True, size=4096)
    server = socket.create_server(("127.0.0.1", 0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{PLACE}/{number}.sock")
    paths = [f"/dev/shm/{memory.name}", f"{PLACE}/{number}.sock"]
    tell(paths, [server.getsockname()[1]])
    wait()
    server.close()
    listener.close()
    os.unlink(f"{PLACE}/{number}.sock")
    memory.close()
    memory.unlink()
"""

#: The kernel makes things, too, and starts a program.
_IN_KERNEL: Final = """
import subprocess
from multiprocessing.shared_memory import SharedMemory
memory = SharedMemory(create=True, size=4096)
child = subprocess.Popen(["sleep", "1000"])
print(memory.name)
"""

_JUPYTER: Final = """
from jupyter_client import KernelManager

if __name__ == "__main__":
    keep("data")
    manager = KernelManager(
        transport="ipc", ip=f"{PLACE}/kernel", connection_file=f"{PLACE}/kernel.json"
    )
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=50)
    name = []
    said = lambda message: name.append(message["content"].get("text", ""))
    client.execute_interactive(os.environ["IN_KERNEL"], output_hook=said, timeout=50)
    memory = "/dev/shm/" + "".join(name).strip()
    sockets = [f"{PLACE}/{each}" for each in os.listdir(PLACE) if each.startswith("kernel-")]
    tell([memory, *sockets])
    wait()
    client.execute_interactive("child.kill(); memory.close(); memory.unlink()", timeout=50)
    client.stop_channels()
    manager.shutdown_kernel()
"""


@final
class Program(NamedTuple):
    """A program: the modules that it needs, its source, and how it is run with that."""

    modules: tuple[str, ...]
    source: str
    #: What stands before the path of the source, behind the interpreter; and behind it.
    before: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    #: How many of its processes say that they are at work.
    lines: int = 2
    #: Whether it ends by SIGTERM, and not by itself.
    is_server: bool = False

    def prepare(self, place: Path) -> list[str]:
        """Prepare its folder; return its command."""
        place.mkdir()
        os.mkfifo(place / "go")
        (place / "said").touch()
        source = place / "test_source.py"
        source.write_text(_COMMON + self.source)
        # What it says is its own, and what it complains of is looked at.
        quiet = ("sh", "-c", 'exec "$@" >"$PLACE/printed" 2>"$PLACE/complaints"', "sh")
        return [*quiet, sys.executable, *self.before, str(source), *self.behind]


def environment_of(place: Path) -> dict[str, str]:
    """What is in the environment of a program with this folder."""
    return {
        "PLACE": str(place),
        "IN_KERNEL": _IN_KERNEL,
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(place / "ipython"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
    }


PROGRAMS: Final = {
    "joblib": Program(("joblib", "numpy"), _JOBLIB),
    "gunicorn": Program(
        ("gunicorn", "uvicorn_worker"),
        _GUNICORN,
        before=("-m", "gunicorn", "-c"),
        behind=("test_source:app",),
        is_server=True,
    ),
    "pytest-xdist": Program(
        ("xdist",), _XDIST, before=("-m", "pytest", "-q", "-p", "xdist.plugin", "-n2")
    ),
    "jupyter": Program(("ipykernel", "jupyter_client"), _JUPYTER, lines=1),
}
