"""Programs of another user that rearrange a folder while things in it are given back."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, final

import pytest
from journal_hosts import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

#: nobody, who may do nothing that root does not let everybody do.
STRANGER = 65534

#: How often each attack is tried that reaches the thing itself.
TRIES = 10_000 if os.environ.get("PROBATE_CHAOS") else 300

#: What stat(1) calls ext2, ext3 and ext4.
_EXT4 = "ext2/ext3"


@cache
def _program() -> list[str]:
    """The command of an attacker, which the stranger can reach and run."""
    folder = Path(tempfile.mkdtemp(prefix="probate-attacker-"))
    folder.chmod(0o755)
    source = Path(__file__).with_name("attacker.c")
    if (compiler := shutil.which("cc")) is not None:
        program = folder / "attacker"
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
        return [str(program)]
    # The interpreter of the tests may be out of the stranger's reach.
    copied = str(shutil.copy(source.with_suffix(".py"), folder))
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    return [python, "-I", copied]


def forget_program() -> None:
    """Remove the command again."""
    if _program.cache_info().currsize:
        shutil.rmtree(Path(_program()[-1]).parent)
        _program.cache_clear()


def names_in(fd: int) -> list[str]:
    """What is in an open folder, wherever it is by now."""
    return os.listdir(fd)


@final
class Attacker:
    """An attacker that runs, as the stranger or as root; killed at the end."""

    def __init__(self, folder: Path, *words: str, as_root: bool = False) -> None:
        options: dict[str, Any] = {}
        if not as_root:
            options = {"user": STRANGER, "group": STRANGER, "extra_groups": []}
        self._process = subprocess.Popen(
            [*_program(), str(folder), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()
            self._process.wait(PATIENCE)

    def is_alive(self) -> bool:
        """Whether it attacks still."""
        return self._process.poll() is None

    def say(self, line: object) -> None:
        """Tell it to go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """What it says next."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], PATIENCE)[0]
        line: str = self._process.stdout.readline()
        return line.strip()


@contextmanager
def ext4_folder() -> Iterator[Path]:
    """A new folder on ext4 that all may enter: on this machine's, or in an image of our own."""
    for place in (tempfile.gettempdir(), "/var/tmp"):
        if _type_of(place) == _EXT4:
            with new_folder(place) as folder:
                yield folder
            return
    with new_folder(tempfile.gettempdir()) as outer, mounted_ext4(outer) as folder:
        yield folder


@contextmanager
def mounted_ext4(outer: Path) -> Iterator[Path]:
    """A file system of our own, in a file; skips where none can be made or mounted."""
    folder = outer / "mounted"
    folder.mkdir()
    try:
        mount_image(ext4_image(outer / "image"), folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no folder on ext4, and none can be made: {error}")
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def ext4_image(path: Path) -> Path:
    """Make a file with an empty file system in it."""
    with path.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    return path


def mount_image(image: Path, folder: Path) -> None:
    """Mount such a file."""
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)


def _type_of(folder: str) -> str:
    said = subprocess.run(
        ["stat", "-f", "-c", "%T", folder], check=True, capture_output=True, text=True
    )
    return said.stdout.strip()


@contextmanager
def new_folder(place: str) -> Iterator[Path]:
    """A new folder that all may enter; removed with what is left in it."""
    folder = Path(tempfile.mkdtemp(prefix="probate-attack-", dir=place))
    folder.chmod(0o755)
    try:
        yield folder.resolve()
    finally:
        shutil.rmtree(folder)
