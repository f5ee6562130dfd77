"""Makes and gives back named things of all kinds, for ever, in children that are to be killed.

A program: `STATE FOLDER`. For each line "SEED REAPER" on its input it forks one, which says its
pid. Of a seed, all names begin with that, or are in a folder of that name.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sysv_kernel

from probate import ProcessManager, ResourceOrchestrator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What comes before the sort and the key of a System V object, in place of a folder.
_SYSV: Final = "/proc/sysvipc/"
_SEED_BITS: Final = 20
_NUMBER_BITS: Final = 10

_PR_SET_PDEATHSIG: Final = 1


def prefix_of(seed: int | None = None) -> str:
    """What names begin with that are of this seed, or of any."""
    return "probate-chaos-" if seed is None else f"probate-chaos-{seed}-"


def seconds_of(seed: int) -> str:
    """How long the programs of this seed sleep: what tells them from others."""
    return f"100{seed}.125"


def left_of(seed: int, folder: Path) -> set[str]:
    """What the kernel has by the names of a seed, in whatever place things of all have."""
    found = {
        f"{place}/{name}"
        for place in ("/dev/shm", "/dev/mqueue", "/tmp")
        if Path(place).is_dir()
        for name in os.listdir(place)  # noqa: PTH208  names are what is needed
        if name.removeprefix("sem.").startswith(prefix_of(seed))
    }
    if (folder / str(seed)).is_dir():
        found |= {str(path) for path in (folder / str(seed)).iterdir()}
    return found | {
        f"{_SYSV}{which}/{key:#x}"
        for which in sysv_kernel.SORTS
        for key in sysv_kernel.ids_by_key(which)
        if key >> _NUMBER_BITS == _prefix_of_keys(seed)
    }


def _prefix_of_keys(seed: int) -> int:
    """As `prefix_of`, for keys, which have 31 bits: those of seeds that follow differ."""
    return 1 << _SEED_BITS | seed % (1 << _SEED_BITS)


def sysv_of(name: str) -> tuple[str, int] | None:
    """The sort and key of a System V object, of which the name says both; None for a path."""
    if not name.startswith(_SYSV):
        return None
    which, _, key = name.removeprefix(_SYSV).partition("/")
    return which, int(key, 16)


def is_there(name: str) -> bool:
    """Whether the kernel has anything by a name."""
    if (named := sysv_of(name)) is not None:
        return named[1] in sysv_kernel.ids_by_key(named[0])
    return os.path.lexists(name)


def remove(name: str) -> None:
    """Remove what is there by a name, outside of the folder."""
    if (named := sysv_of(name)) is not None:
        which, key = named
        if (number := sysv_kernel.ids_by_key(which).get(key)) is not None:
            sysv_kernel.remove(which, number)
    elif name.startswith("/dev/"):
        Path(name).unlink(missing_ok=True)


def main() -> None:
    """Fork whom the input asks for."""
    state, folder = sys.argv[1], Path(sys.argv[2])
    # Everything is imported once, and not in each of them.
    orchestrator = ResourceOrchestrator().discover()
    assert len(orchestrator) > 10
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        seed, has_reaper = map(int, line.split())
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            live(state, folder / str(seed), seed, has_reaper=bool(has_reaper))


def live(state: str, folder: Path, seed: int, *, has_reaper: bool) -> None:
    """Make and give back, until killed, at the latest when the one is gone that has forked it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    generator = random.Random(seed)
    folder.mkdir()
    builder = ProcessManager.builder().with_journal(state, reaper=has_reaper)
    manager = builder.with_grace(0).with_deadline(None).build()
    os.write(sys.stdout.fileno(), b"%d\n" % os.getpid())
    while True:
        process = manager.create_process("victim")
        makers = list(makers_of(manager, process.pid, folder, seed))
        for _ in range(generator.randrange(1, 12)):
            generator.choice(makers)()
        process.terminate()


_numbers = count(1)


def makers_of(
    manager: ProcessManager, pid: int, folder: Path, seed: int
) -> Iterator[Callable[[], Any]]:
    """What makes things of each kind, under names that tell whose they are."""
    memory, ipc, files, sockets, mmap = (
        manager.orchestrator[kind].manager for kind in ("memory", "ipc", "files", "sockets", "mmap")
    )

    def name() -> str:
        return f"{prefix_of(seed)}{next(_numbers)}"

    def key() -> int:
        number = next(_numbers) % (1 << _NUMBER_BITS)
        return _prefix_of_keys(seed) << _NUMBER_BITS | number

    yield lambda: memory.create_shared_memory(pid, name(), size=4096)
    yield lambda: memory.close(pid, memory.create_shared_memory(pid, name(), size=1))
    yield lambda: ipc.create_posix_queue(pid, f"/{name()}", max_messages=1)
    yield lambda: ipc.create_posix_semaphore(pid, f"/{name()}")
    yield lambda: ipc.create_sysv_queue(pid, key())
    yield lambda: ipc.create_sysv_semaphore(pid, key())
    yield lambda: memory.create_segment(pid, 4096, key=key())
    yield lambda: mmap.map_temporary(pid, 4096, directory=folder)
    yield lambda: files.temporary_file(pid, directory=folder)
    yield lambda: files.temporary_directory(pid, directory=folder)
    yield lambda: files.mkfifo(pid, folder / name())
    yield lambda: sockets.listen_unix(pid, str(folder / f"s{next(_numbers)}"))
    yield lambda: manager.spawn(["sleep", seconds_of(seed)])


if __name__ == "__main__":
    main()
