"""Who runs the program: each supervisor, what it is for, and how a command is run by it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Callable

_PROGRAM: Final = Path(__file__).with_name("program.py")

#: Without a venv, which may be where a namespace has something else.
_PYTHON: Final = os.path.realpath(sys.executable)

_PROBATE: Final = str(Path(sys.executable).with_name("probate"))


@final
class AbsentError(Exception):
    """Raised when a supervisor cannot be had here; says why."""


@final
class Surroundings(NamedTuple):
    """Where one cell happens, and by which names."""

    #: A folder of its own, with a copy of the program.
    place: Path
    #: What all that the program makes is called.
    tag: str
    #: Where the peers are: a venv, and what packages of Debian have been unpacked to.
    venv: Path
    unpacked: Path

    def program(self, tracker: str = "") -> list[str]:
        """The program's command."""
        words = [_PYTHON, "-S", "-E", str(self.place / _PROGRAM.name), str(self.place), self.tag]
        return [*words, tracker] if tracker else words

    def script(self, path: str, *lines: str) -> Path:
        """Write a script of sh."""
        return self.file(path, "#!/bin/sh", *lines, mode=0o755)

    def file(self, path: str, *lines: str, mode: int = 0o644) -> Path:
        """Write a file."""
        file = self.place / path
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))
        file.chmod(mode)
        return file

    def peer(self, name: str) -> str:
        """The path of a script in the venv of peers. Raises AbsentError."""
        path = self.venv / "bin" / name
        if not path.exists():
            raise AbsentError(f"no {name}: its package could not be installed")
        return str(path)


@final
class Supervisor(NamedTuple):
    """One way to run the program."""

    name: str
    #: What it is for.
    purpose: str
    #: The command that runs the program. Raises AbsentError.
    command: Callable[[Surroundings], list[str]]
    #: What else is to be done when that has started, so that it runs it.
    then: Callable[[Surroundings], object] | None = None


def before(*words: str) -> Callable[[Surroundings], list[str]]:
    """Of one that takes the command behind its own name and options."""
    return lambda here: [*words, *here.program()]


def _shell(here: Surroundings) -> list[str]:
    # With something behind it, else sh becomes the program.
    return ["sh", "-c", f"{shlex.join(here.program())}; :"]


def _runit(command: str) -> Callable[[Surroundings], list[str]]:
    def run(here: Surroundings) -> list[str]:
        here.script("service/run", f"exec {shlex.join(here.program())}")
        # So that it is started once, by hand.
        here.file("service/down")
        return [command, str(here.place / "service")]

    return run


def _start_once(here: Surroundings) -> None:
    """Have it started without being started again (runsv(8), supervise(8))."""
    control = here.place / "service/supervise/control"
    over = time.monotonic() + 20
    while time.monotonic() < over:
        try:
            fd = os.open(control, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            # It does not listen yet.
            time.sleep(0.05)
            continue
        os.write(fd, b"o")
        os.close(fd)
        return


def _s6(here: Surroundings) -> list[str]:
    here.script("service/run", f"exec {shlex.join(here.program())}")
    # 125: it is not started again (s6-supervise).
    here.script("service/finish", "exit 125")
    return ["s6-supervise", str(here.place / "service")]


def _supervisord(here: Surroundings) -> list[str]:
    place = here.place / "supervisor"
    configuration = here.file(
        "supervisor/supervisord.conf",
        "[supervisord]",
        f"logfile={place}/log",
        f"pidfile={place}/pid",
        f"childlogdir={place}",
        "[program:program]",
        f"command={shlex.join(here.program())}",
        "autorestart=false",
        "startsecs=0",
        "stopasgroup=true",
        "killasgroup=true",
    )
    return [here.peer("supervisord"), "-n", "-c", str(configuration)]


def _circus(here: Surroundings) -> list[str]:
    place = here.place / "circus"
    configuration = here.file(
        "circus/circus.ini",
        "[circus]",
        f"endpoint=ipc://{place}/endpoint",
        f"pubsub_endpoint=ipc://{place}/pubsub",
        "[watcher:program]",
        f"cmd={shlex.join(here.program())}",
        "respawn=False",
        "stop_children=True",
    )
    return [here.peer("circusd"), str(configuration)]


def _honcho(here: Surroundings) -> list[str]:
    procfile = here.file("honcho/Procfile", f"program: {shlex.join(here.program())}")
    return [here.peer("honcho"), "-f", str(procfile), "start"]


_DAEMON: Final = """
import daemon, os, sys
with daemon.DaemonContext(working_directory=os.getcwd(), detach_process=True):
    os.execv(sys.argv[1], sys.argv[1:])
"""


def _python_daemon(here: Surroundings) -> list[str]:
    return [here.peer("python"), "-c", _DAEMON, *here.program()]


#: As a program that starts another, and waits for it.
_CALL: Final = "import subprocess, sys; subprocess.call(sys.argv[1:])"


def _multiprocessing(here: Surroundings) -> list[str]:
    return [sys.executable, "-c", _CALL, *here.program("std")]


def _loky(here: Surroundings) -> list[str]:
    _, *words = here.program("loky")
    # Not isolated from its own libraries.
    return [sys.executable, "-c", _CALL, here.peer("python"), *words[2:]]


def _unshare(*more: str) -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *as_root, "--fork", "--pid", "--ipc", "--kill-child", *more]


def _private(here: Surroundings) -> list[str]:
    mounts = "mount -t tmpfs shm /dev/shm && mount -t tmpfs tmp /tmp && exec"
    script = f"{mounts} {shlex.join(here.program())}"
    return [*_unshare("--mount", "--net", "--mount-proc"), "sh", "-c", script]


def _bubblewrap(here: Surroundings) -> list[str]:
    of_its_own = ["--unshare-all", "--die-with-parent", "--dev", "/dev", "--proc", "/proc"]
    return ["bwrap", "--bind", "/", "/", *of_its_own, "--tmpfs", "/tmp", *here.program()]


def _firejail(here: Surroundings) -> list[str]:
    options = ["--noprofile", "--quiet", "--ipc-namespace", "--writable-var", "--keep-var-tmp"]
    command = ["firejail", *options, *here.program()]
    if Path("/usr/bin/firejail").exists():
        return command
    if os.geteuid() != 0:
        raise AbsentError("it is set-user-id root, and was not installed")
    if not (here.unpacked / "usr/bin/firejail").exists():
        raise AbsentError("not installed, and its package could not be had")
    # It looks for its parts where it would be installed: there they are, for it alone.
    mounts = " && ".join(
        f"mount -t overlay -o lowerdir={here.unpacked}/{folder}:/{folder} overlay /{folder}"
        for folder in ("usr", "etc")
    )
    return ["unshare", "--mount", "sh", "-c", f"{mounts} && exec {shlex.join(command)}"]


def _systemd(here: Surroundings) -> list[str]:
    if not Path("/run/systemd/system").exists():
        raise AbsentError("systemd does not run here")
    whose = [] if os.geteuid() == 0 else ["--user"]
    return ["systemd-run", *whose, "--scope", "--quiet", "--collect", *here.program()]


def _parallel(here: Surroundings) -> list[str]:
    return ["parallel", "--will-cite", "-j1", "-N0", shlex.join(here.program()), ":::", "1"]


_SPAWN: Final = """
import sys
from probate import ProcessManager
with ProcessManager.builder().build() as manager:
    process = manager.spawn(sys.argv[1:]{})
    manager.wait(process.pid, timeout=600)
"""


def _spawn(options: str = "") -> Callable[[Surroundings], list[str]]:
    return lambda here: [sys.executable, "-c", _SPAWN.format(options), *here.program()]


def _run(*options: str) -> Callable[[Surroundings], list[str]]:
    # It says all that it has found, also where nobody reads it.
    return before(_PROBATE, "run", *options, "--report", "json", "--")


SUPERVISORS: Final = (
    Supervisor("sh -c", "runs a command", _shell),
    Supervisor("nohup", "lets it outlive its terminal", before("nohup")),
    Supervisor("setsid -w", "gives it a session of its own", before("setsid", "-w")),
    Supervisor("timeout -k", "bounds its time", before("timeout", "-k", "1", "600")),
    Supervisor("GNU parallel", "runs many", _parallel),
    Supervisor("python-daemon", "makes a daemon of a program", _python_daemon),
    Supervisor("tini -s -g", "init of a container", before("tini", "-s", "-g", "--")),
    Supervisor("dumb-init", "init of a container", before("dumb-init")),
    Supervisor("catatonit", "init of a container", before("catatonit", "--")),
    Supervisor("s6-supervise", "keeps a service running", _s6),
    Supervisor("runsv", "keeps a service running", _runit("runsv"), _start_once),
    Supervisor("supervise", "keeps a service running", _runit("supervise"), _start_once),
    Supervisor("supervisord", "keeps services running", _supervisord),
    Supervisor("circusd", "keeps services running", _circus),
    Supervisor("honcho", "runs a Procfile", _honcho),
    Supervisor("systemd-run --scope", "runs a command in a cgroup", _systemd),
    Supervisor(
        "multiprocessing's tracker",
        "removes what Python has registered, when all who hold its pipe are dead",
        _multiprocessing,
    ),
    Supervisor("loky's tracker", "the same, for files and folders too", _loky),
    Supervisor(
        "unshare --pid --ipc --kill-child",
        "gives it processes and IPC objects of its own",
        lambda here: [*_unshare("--mount-proc"), *here.program()],
    ),
    Supervisor("unshare with its own /dev/shm and /tmp", "a small sandbox", _private),
    Supervisor("bwrap --unshare-all", "a sandbox, with its own /tmp", _bubblewrap),
    Supervisor("firejail --ipc-namespace", "a sandbox, without a profile", _firejail),
    Supervisor("`ProcessManager.spawn`", "a program of a host, which ends its tree", _spawn()),
    Supervisor(
        "`ProcessManager.spawn(observe=True)`",
        "the same, and gives back what that makes by name",
        _spawn(", observe=True"),
    ),
    Supervisor("`probate run`", "settles what any command leaves; data is kept", _run()),
    Supervisor(
        "`probate run --settle all`",
        "takes temporary files after a normal end, too",
        _run("--settle", "all"),
    ),
    Supervisor(
        "`probate run --isolate --settle all`",
        "in namespaces of its own, but for files",
        _run("--isolate", "--settle", "all"),
    ),
)
