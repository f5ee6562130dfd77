"""A host of its own is killed with all that it holds; then one together with its reaper."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from probate import OsProcess
from probate.cli.demo.host import DemoError
from probate.cli.demo.mortal import KINDS
from probate.cli.demo.report import DeadHost
from probate.cli.lack import Lack
from probate.settlement import read_accounts, sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate.cli.demo.host import Host
    from probate.settlement import HostAccount

#: Seconds that a host gets to begin, and its reaper to settle.
_PATIENCE: Final = 20.0

#: As in the demo itself: before anything is imported that starts threads.
_PROGRAM: Final = (
    "from probate.cli.lack import prepare_address_space; prepare_address_space(); "
    "from probate.cli.demo.mortal import main; main()"
)

_REAPER: Final = b"probate/journal/reaper.py"


def run(host: Host) -> list[DeadHost]:
    """Kill a host, and a host with its reaper; return what became of what each had left.

    Raises DemoError if one does not begin, OSError for want of what it needs.
    """
    # Short, as paths of sockets have to be (unix(7)).
    folder = host.folder / "d"
    folder.mkdir(0o700)
    try:
        host.tell("a host of its own is killed, with all that it holds")
        with _Mortal(host, folder) as first:
            killed = first.killed_alone()
        host.tell("another one is killed together with its reaper, and a sweep does the rest")
        with _Mortal(host, folder) as second:
            return [killed, second.killed_with_its_reaper()]
    finally:
        shutil.rmtree(folder)


@final
class _Mortal:
    """A host that holds things with names, and what it has said of them."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host = host
        self._state = str(folder / "state")
        kinds = [kind for kind in KINDS if host.has(kind)]
        self._process = subprocess.Popen(  # noqa: S603  our interpreter and our program
            [sys.executable, "-P", "-c", _PROGRAM, str(folder), *kinds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Where there is a folder, whatever has become of ours.
            cwd="/",
            # So that Ctrl-C is for the demo alone.
            start_new_session=True,
        )
        self._made: list[tuple[str, str, str | int]] = []

    def __enter__(self) -> _Mortal:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def _begin(self) -> None:
        if (said := self._process.stdout) is None:
            raise DemoError("a host was started without a pipe")
        with said:
            ready = select.select([said], [], [], _PATIENCE)[0]
            line = said.readline() if ready else b""
        if not line:
            raise self._failure()
        made, lacks = json.loads(line)
        for kind, lack in lacks:
            self._host.note_lack("killed hosts", kind, Lack(*lack))
        self._made = [(kind, what, name) for kind, what, name in made]

    def _failure(self) -> DemoError:
        """Say why it did not begin: the last line of what it has written, if it has."""
        self._process.kill()
        self._process.wait()
        written = b""
        if (errors := self._process.stderr) is not None:
            # What it has started may have it open for longer.
            os.set_blocking(errors.fileno(), False)
            written = errors.read() or b""
        where = written.decode(errors="replace")
        return DemoError(
            ": ".join(["a host that is to be killed did not begin", *where.splitlines()[-1:]]),
            where,
        )

    def killed_alone(self) -> DeadHost:
        """Kill the host, and wait for what its reaper says."""
        began = time.monotonic()
        self._process.kill()
        over = began + _PATIENCE
        while not (accounts := read_accounts(self._state)):
            if time.monotonic() > over:
                raise DemoError("no reaper has settled what a dead host had left")
            time.sleep(0.005)
        return self._report("its reaper", accounts, began)

    def killed_with_its_reaper(self) -> DeadHost:
        """Kill both, so that neither acts, and sweep."""
        with self._reaper() as reaper:
            reaper.send_signal(signal.SIGSTOP)
            self._process.kill()
            reaper.send_signal(signal.SIGKILL)
            select.select([reaper.fileno()], [], [], _PATIENCE)
        self._process.wait()
        began = time.monotonic()
        return self._report("a sweep", sweep(self._host.orchestrator, self._state), began)

    def _reaper(self) -> OsProcess:
        """Find the host's reaper among the processes to which it has pidfds (proc(5), fdinfo)."""
        for info in Path(f"/proc/{self._process.pid}/fdinfo").iterdir():
            for line in info.read_text().splitlines():
                name, _, text = line.partition(":\t")
                if name == "Pid" and int(text) > 0:
                    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                        process = OsProcess.open(int(text))
                        if _REAPER in Path(f"/proc/{int(text)}/cmdline").read_bytes():
                            return process
                        process.close()
        raise DemoError("a host that holds things with names has no reaper")

    def _report(self, settler: str, accounts: list[HostAccount], began: float) -> DeadHost:
        rows = [row for account in accounts for row in account.rows]
        still = [f"{what} {name}" for _, what, name in self._made if _WITNESSES[what](name)]
        kept = [f"{row.description}: {row.outcome}: {row.text}" for row in rows if row.is_kept]
        return DeadHost(
            settler=settler,
            seconds=time.monotonic() - began,
            kinds=dict(Counter(row.kind for row in rows if not row.is_kept)),
            owners=tuple(each.key or "" for account in accounts for each in account.owners),
            differences=(*kept, *(f"left by a dead host: {each}" for each in still)),
        )


def _is_sysv(sort: str) -> Callable[[str | int], bool]:
    def is_there(number: str | int) -> bool:
        # The second column, in all three (proc(5), /proc/sysvipc).
        lines = Path(f"/proc/sysvipc/{sort}").read_text().splitlines()[1:]
        return any(line.split()[1] == str(number) for line in lines)

    return is_there


def _is_process(os_pid: str | int) -> bool:
    try:
        with OsProcess.open(int(os_pid)) as process:
            return not process.has_exited()
    except ProcessLookupError:
        return False


#: How the kernel is asked whether something is still there.
_WITNESSES: Final[dict[str, Callable[[str | int], bool]]] = {
    "path": os.path.lexists,
    "process": _is_process,
    "shm": _is_sysv("shm"),
    "msg": _is_sysv("msg"),
    "sem": _is_sysv("sem"),
}
