"""One look at all OS processes serves for many things, and not for ever; nobody escapes it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest
from children import exit_code_of_fork
from mount_namespace import enter_mount_namespace

from probate.journal import users
from probate.journal.handles import boot_id, network_namespace
from probate.journal.users import (
    look_again,
    users_of_file,
    users_of_folder,
    users_of_socket,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Looks at one that changes its pid all the time.
LOOKS: Final = 200 if os.environ.get("PROBATE_CHAOS") else 5

#: Forks until the other end of its standard input is closed.
GOES_ON: Final = """
import os
os.set_blocking(0, False)
def goes_on():
    try:
        return os.read(0, 1) != b""
    except BlockingIOError:
        return True
print(flush=True)
"""
#: Its child goes on, and so forth, with all that it has open.
HOPPER: Final = f"{GOES_ON}while goes_on():\n    os.fork() and os._exit(0)\n"
#: Its children end at once.
STORM: Final = f"""{GOES_ON}while goes_on():
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
"""


@contextlib.contextmanager
def running(script: str, folder: Path, *pass_fds: int) -> Iterator[None]:
    """Have a script run, in a folder and with these descriptors."""
    argv = [sys.executable, "-SEc", script, *map(str, pass_fds)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, cwd=folder, pass_fds=pass_fds) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        yield
        assert popen.stdin is not None
        popen.stdin.close()
        # Until the last of them has ended.
        popen.stdout.read()


@pytest.fixture(autouse=True)
def _look_is_new() -> Iterator[None]:
    look_again()
    yield
    look_again()


@pytest.mark.parametrize("storms", [0, 2], ids=["quiet", "beside forks of others"])
def test_a_user_that_changes_its_pid_all_the_time_is_seen(tmp_path: Path, storms: int) -> None:
    """It is in no listing of processes that still lives when it is looked at.

    What nobody uses is told from that, also while others fork.
    """
    used, unused = tmp_path / "used", tmp_path / "unused"
    for folder in (used, unused):
        folder.mkdir()
        (folder / "file").touch()
    told = []
    with contextlib.ExitStack() as stack:
        with open(used / "file") as file:
            stack.enter_context(running(HOPPER, used, file.fileno()))
        for _ in range(storms):
            stack.enter_context(running(STORM, tmp_path))
        for _ in range(LOOKS):
            look_again()
            told += [(of_file(folder / "file"), of_folder(folder)) for folder in (used, unused)]

    assert told[1::2] == [("", "")] * LOOKS
    assert all(each.startswith("still in use by ") for both in told[::2] for each in both)


@contextlib.contextmanager
def pinned(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """What is there, as who gives back has it."""
    pin = os.open(path, os.O_PATH)
    try:
        yield pin, os.fstat(pin)
    finally:
        os.close(pin)


def of_file(path: Path) -> str:
    """Who uses a file."""
    with pinned(path) as pin:
        return users_of_file(*pin)


def of_folder(path: Path) -> str:
    """Who uses a folder."""
    with pinned(path) as pin:
        return users_of_folder(*pin)


def test_where_that_cannot_be_told_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is given back then: who uses it may have come and gone, each time unseen."""

    class Untold:
        are_told = False

        def saw(self, count: int) -> None:
            pass

        def __iter__(self) -> Iterator[list[int]]:
            yield [os.getpid()]

    monkeypatch.setattr(users, "Arrivals", Untold)
    (tmp_path / "file").touch()

    assert "come and go too fast" in of_file(tmp_path / "file")
    assert "come and go too fast" in of_folder(tmp_path)


def test_a_look_serves_for_longer_where_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some times as long as it has taken, and no more than two seconds."""
    looks: list[float] = []

    class Slow:
        are_told = True

        def __iter__(self) -> Iterator[list[int]]:
            looks.append(time.monotonic())
            time.sleep(0.3)
            return iter(())

    monkeypatch.setattr(users, "Arrivals", Slow)
    started = time.monotonic()
    while len(looks) < 3:
        of_file(tmp_path)
        time.sleep(0.01)
    took = time.monotonic() - started

    assert looks[1] - looks[0] >= 5 * 0.3
    # A machine may be busy.
    assert took < 2 * (2.0 + 0.3) + 10


# -- file systems that have a device of their own for each subvolume -----------------

#: Maps a file, whose descriptor it closes, as C programs do; Python's mmap keeps one.
MAPS: Final = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.mmap.argtypes = [ctypes.c_void_p, *[ctypes.c_size_t] * 2, *[ctypes.c_int] * 2, ctypes.c_long]
fd = int(sys.argv[1])
libc.mmap(None, 4096, 3, 1, fd, 0)
os.close(fd)
print(flush=True)
sys.stdin.read()
"""


def test_who_has_mapped_it_is_seen_where_stat_tells_another_device(tmp_path: Path) -> None:
    """By the device that the kernel has inside, the inode, and the name."""
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(bytes(4096))
    with mapped(path), pinned(path) as (pin, status):
        os.link(path, other)
        # As of a subvolume.
        elsewhere = os.stat_result((*status[:2], status.st_dev + 1, *status[3:]))

        assert users_of_file(pin, elsewhere).startswith("still in use by ")
        with pinned(other) as (pin_of_other, _):
            assert users_of_file(pin_of_other, elsewhere) == ""


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Have another process map a file, and close it."""
    with contextlib.ExitStack() as stack:
        with open(path, "r+b") as file:
            stack.enter_context(running(MAPS, path.parent, file.fileno()))
        yield


@pytest.mark.needs_root(reason="mounts a file system with subvolumes, for itself")
@pytest.mark.skipif(not shutil.which("mkfs.btrfs"), reason="mkfs.btrfs is not installed")
def test_users_of_what_is_on_a_subvolume_are_seen(tmp_path: Path) -> None:
    """Who has mapped a file of it, and who is bound to a path of it that was moved since."""
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    with open(image, "wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    identity = {"boot": boot_id(), "network_namespace": network_namespace()}

    def look() -> None:
        enter_mount_namespace()
        subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
        subprocess.run(["btrfs", "-q", "subvolume", "create", mounted / "sub"], check=True)
        path = mounted / "sub/file"
        path.write_bytes(bytes(4096))
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(mounted / "sub/before"))
            (mounted / "sub/before").rename(mounted / "sub/after")
            with mapped(path), pinned(mounted / "sub/after") as pin:
                look_again()

                assert of_file(path).startswith("still in use by ")
                assert users_of_socket(*pin, identity).startswith("still bound")

    assert exit_code_of_fork(look) == 0


@pytest.mark.needs_root(reason="makes a disk of a file")
@pytest.mark.skipif(not shutil.which("losetup"), reason="losetup is not installed")
def test_a_file_that_is_a_disk_is_in_use(tmp_path: Path) -> None:
    """The kernel has it then, and no process: a build of an image that was killed."""
    path = tmp_path / "image"
    with open(path, "wb") as file:
        file.truncate(1 << 20)
    make = ["losetup", "--find", "--show", str(path)]
    made = subprocess.run(make, check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no disk can be made here: {made.stderr.strip()}")
    disk = made.stdout.strip()
    try:
        look_again()
        told = of_file(path), of_folder(tmp_path)
    finally:
        subprocess.run(["losetup", "--detach", disk], check=True)
    look_again()

    assert told == (f"still in use as {disk}", f"still in use as {disk}")
    assert (of_file(path), of_folder(tmp_path)) == ("", "")


@pytest.mark.needs_root(reason="mounts a folder in another place, for itself")
def test_what_is_mounted_in_another_place_is_in_use(tmp_path: Path) -> None:
    """As a container's volume is: what is removed here is missing there. So is a part of it."""
    folder, file, place = tmp_path / "folder", tmp_path / "folder/file", tmp_path / "place"
    folder.mkdir()
    file.touch()
    place.mkdir()
    (tmp_path / "place of a file").touch()

    def look() -> None:
        enter_mount_namespace()
        look_again()
        assert (of_folder(folder), of_file(file)) == ("", "")

        subprocess.run(["mount", "--bind", folder, place], check=True)
        look_again()
        assert of_folder(folder) == f"still in use: it is mounted at {place}"
        assert of_folder(tmp_path) == f"something is mounted in it: unmount {place}"
        assert of_file(file) == ""
        subprocess.run(["umount", place], check=True)

        place_of_file = tmp_path / "place of a file"
        subprocess.run(["mount", "--bind", file, place_of_file], check=True)
        look_again()
        assert of_file(file) == f"still in use: it is mounted at {place_of_file}"
        assert of_folder(folder) == f"still in use: it is mounted at {place_of_file}"

    assert exit_code_of_fork(look) == 0
