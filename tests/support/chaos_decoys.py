"""What stands beside hosts that are killed, and is none of theirs: it is to be as it was."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, final

import sysv_ipc
import sysv_kernel
from chaos_victims import prefix_of, remove, seconds_of, sysv_of
from journal_hosts import PATIENCE

if TYPE_CHECKING:
    import random

#: Opens and holds what it is told, until it is told to let go.
_USER = """
import os, sys
held = {}
for line in sys.stdin:
    path = line.rstrip("\\n")
    if path.startswith("-"):
        os.close(held.pop(path[1:]))
        print("ok", flush=True)
        continue
    try:
        held[path] = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        print("ok", flush=True)
    except OSError:
        print("no", flush=True)
"""

THEIRS = "theirs"


def may_be_taken(name: str) -> bool:
    """Whether somebody else could come upon it, and make a file of it: not a random name."""
    path = Path(name)
    is_random = path.name.startswith("probate-") and not path.name.startswith(prefix_of())
    return not sysv_of(name) and not is_random and path.parent != Path("/dev/mqueue")


def _id_of(name: str) -> int | None:
    """The id of the System V object that there is by a name."""
    which, key = sysv_of(name) or ("", 0)
    return sysv_kernel.ids_by_key(which).get(key)


@final
class Decoys:
    """Things of this user's that look like those of the victims of one seed, and their successors.

    Names alike in the same places, and the same names elsewhere; sockets that are served, and one
    that is not; a program with such a command line; a program that uses what a victim has made; and
    whatever takes a name as soon as its owner is dead.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self._successors: set[Path] = set()
        #: Ids of System V objects, by their names.
        self._objects: dict[str, int] = {}
        self._used: set[Path] = set()
        self._uses = 0
        self._files = [Path(f"/dev/shm/{prefix_of(seed)}decoy"), folder / "decoys" / "probate-x"]
        (folder / "decoys").mkdir()
        self._sockets = []
        for name in ("s1", "s2", "s3"):
            path = folder / "decoys" / name
            made = socket.socket(socket.AF_UNIX)
            made.bind(str(path))
            self._sockets.append(made)
            self._files.append(path)
        self._sockets.pop().close()
        for path in self._files[:2]:
            path.write_text(THEIRS)
        self._numbers = {path: path.stat().st_ino for path in self._files}
        # Ctrl-C is for the test alone, which ends them.
        self._program = subprocess.Popen(["sleep", f"{seconds_of(seed)}0"], start_new_session=True)
        self._user = subprocess.Popen(
            [sys.executable, "-S", "-c", _USER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for program in (self._program, self._user):
            with program:
                program.kill()
                program.wait(PATIENCE)
        for each in self._sockets:
            each.close()
        for path in {*self._files, *self._successors}:
            path.unlink(missing_ok=True)
        for name in self._objects:
            remove(name)

    def use_some(self, names: set[str], generator: random.Random) -> None:
        """Have another program open one of these things, which a victim has just now."""
        files = sorted(name for name in names if Path(name).is_file())
        if files:
            path = Path(generator.choice(files))
            if self._ask(str(path)) == "ok":
                self._used.add(path)

    def succeed_some(self, names: set[str], generator: random.Random) -> None:
        """Take one of these names of a victim that is dead, whatever is there still."""
        objects = sorted(name for name in names if sysv_of(name))
        if objects:
            self._succeed_object(generator.choice(objects))
        paths = {Path(name) for name in names if may_be_taken(name)}
        if free := sorted(paths - self._used):
            path = generator.choice(free)
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
                # Where somebody else is quicker, it is not ours.
                fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                os.write(fd, THEIRS.encode())
                os.close(fd)
                self._successors.add(path)

    def _succeed_object(self, name: str) -> None:
        which, key = sysv_of(name) or ("", 0)
        # Where somebody else is quicker, it is not ours.
        with suppress(sysv_ipc.Error):
            remove(name)
            self._objects[name] = sysv_kernel.create(which, key).id

    def faults(self) -> list[str]:
        """What is not as it was, of all. What was used has stayed for its user, who lets go now."""
        found = [
            str(path)
            for path, number in self._numbers.items()
            if not os.path.lexists(path) or path.lstat().st_ino != number
        ]
        found += [
            str(path)
            for path in self._successors | set(self._files[:2])
            if not path.is_file() or path.read_text() != THEIRS
        ]
        found += [name for name, number in self._objects.items() if _id_of(name) != number]
        for path in self._used:
            if not path.exists():
                found.append(f"{path}, from its user")
            assert self._ask(f"-{path}") == "ok"
        self._uses += len(self._used)
        self._used.clear()
        if self._program.poll() is not None or self._user.poll() is not None:
            found.append("a program")
        return found

    @property
    def names(self) -> set[str]:
        """Where something is that is nobody's litter."""
        return {str(path) for path in {*self._files, *self._successors}} | self._objects.keys()

    @property
    def counts(self) -> tuple[int, int]:
        """How many names have successors, and how many things were used."""
        return len(self._successors) + len(self._objects), self._uses

    def _ask(self, line: str) -> str:
        assert self._user.stdin is not None
        assert self._user.stdout is not None
        self._user.stdin.write(f"{line}\n")
        self._user.stdin.flush()
        assert select.select([self._user.stdout], [], [], PATIENCE)[0]
        return self._user.stdout.readline().strip()
