"""Programs that daemonise in their first moments, and shed what marks a tree; users to run them."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import processes_kernel as kernel
import pytest
from children import exit_code_of_fork

from probate import OsProcess
from probate_processes.cgroup import Cgroup
from probate_processes.procfs import cgroup_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strangers import Strangers

    from probate import ProcessManager

NOBODY: Final = 65534

IS_CHAOS: Final = "PROBATE_CHAOS" in os.environ

#: Of so many spawns, one has strangers started beside it.
STRANGERS_EVERY: Final = 4

#: Its daemon is in a session of its own, nobody's child, and says its pid. It stays itself.
SHELL: Final = "(setsid sh -c 'echo $$; exec sleep 300' &); exec sleep 300"
#: As it, and what it was started with is gone: a path has to be told.
BARE_SHELL: Final = (
    "(/usr/bin/setsid /bin/sh -c 'echo $$; exec /bin/sleep 300' &); exec /bin/sleep 300"
)
PYTHON: Final = """
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        os.execve("/bin/sleep", ["sleep", "300"], {})
    os._exit(0)
os.wait()
os.execve("/bin/sleep", ["sleep", "300"], {})
"""
C: Final = r"""
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char *none[] = {NULL}, *again[] = {argv[0], "daemon", NULL};
    if (argc > 1) { dprintf(1, "%d\n", getpid()); for (;;) pause(); }
    if (fork() == 0) {
        setsid();
        if (fork() == 0) execve(argv[0], again, none);
        _exit(0);
    }
    for (;;) pause();
}
"""

#: What makes a login needs root: who else would be asked for a password.
LOGINS: Final = {
    "su -": ["su", "-", "nobody", "-s", "/bin/sh", "-c", SHELL],
    "runuser -l": ["runuser", "-l", "nobody", "-s", "/bin/sh", "-c", SHELL],
    "sudo": ["sudo", "-n", "-u", "nobody", "sh", "-c", SHELL],
}
PLAIN: Final = {
    "env -i": ["env", "-i", "/bin/sh", "-c", BARE_SHELL],
    "setpriv env -i": ["setpriv", "--no-new-privs", "env", "-i", "/bin/sh", "-c", BARE_SHELL],
    "Python": [shutil.which("python3", path="/usr/bin:/bin") or sys.executable, "-SEc", PYTHON],
    "static C": [],
}
PROGRAMS: Final = [*LOGINS, *PLAIN]


def program(name: str, folder: Path) -> list[str]:
    """The command; skips what this machine does not have, by name."""
    if name == "static C":
        return [str(_compiled(folder))]
    argv = {**LOGINS, **PLAIN}[name]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"there is no {argv[0]} here")
    if name in LOGINS and os.geteuid() != 0:
        pytest.skip(f"{argv[0]} asks whoever is not root for a password")
    return argv


def _compiled(folder: Path) -> Path:
    made = folder / "early"
    if not made.exists():
        if shutil.which("gcc") is None:
            pytest.skip("there is no gcc here")
        source = folder / "early.c"
        source.write_text(C)
        command = ["gcc", "-O1", "-static", "-o", str(made), str(source)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("gcc cannot link statically here")
    return made


def survivors(
    manager: ProcessManager,
    argv: list[str],
    rounds: int,
    *,
    at_once: int = 1,
    strangers: Strangers | None = None,
) -> int:
    """Spawn and terminate it so often, each when its daemon has said its pid; count who lived.

    On so many threads at once. Strangers are started while it is spawned, on one of them, and live
    beside it and the next ones.
    """

    def survives(number: int) -> bool:
        if strangers is None or number % STRANGERS_EVERY:
            return _survives(manager, argv)
        with strangers.beside():
            return _survives(manager, argv)

    def count(first: int) -> int:
        return sum(map(survives, range(first, rounds, at_once)))

    if at_once == 1:
        return count(0)
    assert STRANGERS_EVERY % at_once == 0
    with ThreadPoolExecutor(at_once) as threads:
        return sum(threads.map(count, range(at_once)))


def _survives(manager: ProcessManager, argv: list[str]) -> bool:
    """Spawn and terminate it once.

    The daemon holds the pipe that it says its pid by: only its death ends that.
    """
    process = manager.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/")
    assert process.stdout is not None
    with process.stdout as said:
        line = _read(said.fileno())
        assert line, f"{argv[0]} did not start"
        with OsProcess.open(int(line)) as daemon:
            process.terminate()
            lives = daemon.is_there()
            if lives:
                daemon.send_signal(signal.SIGKILL)
        while _read(said.fileno()):
            pass
    return lives


def _read(fd: int) -> bytes:
    ready, _, _ = select.select([fd], [], [], 60)
    assert ready, "nothing said, and not closed"
    return os.read(fd, 1 << 10)


@contextmanager
def computing_threads() -> Iterator[None]:
    """Three, which want the interpreter all the time.

    In everyday runs they hold it asleep, which is the same for whoever waits for it, and leaves the
    processor to other tests.
    """
    is_over = threading.Event()
    before = sys.getswitchinterval()
    sleep_with_the_interpreter = ctypes.PyDLL(None).usleep

    def compute() -> None:
        while not is_over.is_set():
            if IS_CHAOS:
                sum(range(1000))
            else:
                sleep_with_the_interpreter(100)

    threads = [threading.Thread(target=compute) for _ in range(3)]
    # They are in each other's way as ever, but the test is over sooner.
    sys.setswitchinterval(before / 10)
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)


#: Of root in a container: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
#: NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP (capabilities(7)).
_CONTAINERS: Final = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
_PR_CAPBSET_DROP: Final = 24
_CAPABILITIES: Final = 64
_CAP_VERSION_3: Final = 0x20080522


def drop_capabilities() -> None:
    """Keep those that a container's root has by default, in this thread and all that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(_CAPABILITIES):
        if number not in _CONTAINERS:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    mask = sum(1 << number for number in _CONTAINERS)
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)
    assert libc.capset(header, data) == 0


def as_user(who: str, act: Callable[[], None]) -> None:
    """Act as root or another user, with all capabilities or a container's.

    The other user has a cgroup v2 that may be written to, if this one has: as from a login.
    """
    if who == "as it is":
        act()
        return
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    delegated = made_cgroup() if who == "ordinary user" else None

    def child() -> None:
        if who == "ordinary user":
            if delegated is not None:
                for each in (delegated.folder, f"{delegated.folder}/cgroup.procs"):
                    os.chown(each, NOBODY, NOBODY)
                assert delegated.add(os.getpid())
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.environ["PROBATE_STATE"] = state
            if not os.access(sys.executable, os.X_OK):
                # Of root's own environment: for its reaper, any will do.
                sys.executable = shutil.which("python3", path=os.defpath) or sys.executable
        else:
            drop_capabilities()
        act()

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as state:
        os.chown(state, NOBODY, NOBODY)
        try:
            assert exit_code_of_fork(child) == 0
        finally:
            if delegated is not None:
                # Its reaper is inside until it has seen that it is dead; trees have left nothing.
                kernel.eventually(lambda: _is_removed(Path(delegated.folder)), "it is empty")


def made_cgroup() -> Cgroup | None:
    """One below that of this host, if that may be written to."""
    made = Cgroup.create(cgroup_of(os.getpid()))
    return made if made is not None and made.make() else None


def _is_removed(cgroup: Path) -> bool:
    with suppress(OSError):
        cgroup.rmdir()
    return not cgroup.exists()
