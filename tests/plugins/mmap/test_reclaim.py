"""Files of temporary maps whose host has died are removed; files that a user maps never are."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from journal_estates import Estate

if TYPE_CHECKING:
    from pathlib import Path

#: Two maps, one of them in a folder that is asked for through a link.
ALL = Estate(
    "mmap",
    """
    (folder.parent / "link").symlink_to(folder)
    first = kind.map_temporary(process.pid, 8192, directory=folder)
    second = kind.map_temporary(process.pid, 1, directory=folder.parent / "link")
    first[:5] = b"hello"
    paths += [first.path, folder / Path(second.path).name]
    """,
)
ONE = Estate("mmap", "paths.append(kind.map_temporary(process.pid, 4096, directory=folder).path)")
USERS_OWN = Estate(
    "mmap",
    """
    (folder / "data").write_bytes(bytes(4096))
    kind.map_file(process.pid, folder / "data")
    kind.map_anonymous(process.pid, 4096)
    """,
)


def test_a_killed_worker(tmp_path: Path) -> None:
    """The host removes the file at once."""
    ONE.goes_with_a_killed_worker(tmp_path)


def test_a_killed_host(tmp_path: Path) -> None:
    """The reaper removes the files."""
    ONE.goes_with_a_killed_host(tmp_path)


def test_a_killed_host_and_reaper(tmp_path: Path) -> None:
    """A sweep removes them, wherever a link leads by then."""
    ALL.goes_with_host_and_reaper(tmp_path)


def test_what_is_unmapped_in_time(tmp_path: Path) -> None:
    """It leaves nothing to give back."""
    ALL.leaves_no_row_in_time(tmp_path)


def test_a_file_that_a_user_maps_is_never_removed(tmp_path: Path) -> None:
    """It is not noted, nor is what has no name."""
    USERS_OWN.takes_no_store(tmp_path)

    assert [each.name for each in (tmp_path / "things").iterdir()] == ["data"]


def test_a_successor_at_the_path_is_left_alone(tmp_path: Path) -> None:
    """The file is gone, and another is there."""
    with ONE.host(tmp_path) as held:
        held.kill_both()
        held.paths[0].unlink()
        held.paths[0].write_text("theirs")

        assert held.row().outcome == "already gone"
        assert held.paths[0].read_text() == "theirs"


def test_a_file_that_somebody_else_maps_is_kept_until_nobody_does(tmp_path: Path) -> None:
    """REFUSED, with who maps it, though the descriptor is closed."""
    script = """if True:
        import ctypes, os, sys
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        fd = os.open(sys.argv[1], os.O_RDONLY)
        assert libc.mmap(None, ctypes.c_size_t(4096), 1, 1, fd, ctypes.c_long(0))
        os.close(fd)
        print("up", flush=True)
        sys.stdin.read()
    """
    with (
        ONE.host(tmp_path) as held,
        subprocess.Popen(
            [sys.executable, "-c", script, str(held.paths[0])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as user,
    ):
        assert user.stdout is not None
        assert user.stdout.readline() == "up\n"
        held.kill_both()

        row = held.row()
        assert (row.outcome, row.text) == ("refused", f"still in use by {user.pid}")
        assert held.paths[0].exists()
        user.kill()
        user.wait()
        assert held.row().outcome == "released"
        assert not held.paths[0].exists()
