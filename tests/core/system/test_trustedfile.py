"""Files that tell a program what to do: judged as they are read, whatever lies in their place."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from probate.system import trustedfile
from probate.system.trustedfile import FileRead, read_judged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Nobody's, and neither root's nor that of whoever runs the tests.
STRANGER = 54321


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of ours, which nobody else may write, in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "settings"
    path.write_bytes(b"content")
    path.chmod(0o644)
    return path


def test_a_file_of_ours_is_read(file: Path) -> None:
    """Whatever others may read of it."""
    assert read_judged("settings", 7) == FileRead(b"content")


def test_nothing_of_that_name_is_nothing(file: Path) -> None:
    """No error: files that tell what to do are optional."""
    assert read_judged("other", 7) is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_may_write_is_distrusted(file: Path, mode: int) -> None:
    """Group and world alike; the mend is named, with the path as it can be pasted."""
    file.chmod(mode)
    found = read_judged("settings", 7)

    assert found is not None
    assert (
        found.distrust == f"others than its owner may write it; if you trust it, chmod go-w {file}"
    )


@pytest.mark.needs_root(reason="gives files away")
@pytest.mark.parametrize("mode", [0o644, 0o000])
def test_what_belongs_to_another_user_is_distrusted(file: Path, mode: int) -> None:
    """Of root's eyes as well, and whether or not it can be read."""
    os.chown(file, STRANGER, 0)
    file.chmod(mode)
    found = read_judged("settings", 7)

    assert found is not None
    assert found.distrust.startswith(f"it belongs to user {STRANGER}, who is neither this one nor")
    assert found.distrust.endswith(f"chown {os.geteuid()} {file}")


@pytest.mark.needs_root(reason="gives links away")
def test_a_link_of_another_user_is_not_followed(file: Path) -> None:
    """Whoever makes a link chooses the file, if only among those that are to be trusted."""
    link = file.with_name("link")
    link.symlink_to(file)
    assert read_judged("link", 7) == FileRead(b"content")

    os.chown(link, STRANGER, 0, follow_symlinks=False)
    found = read_judged("link", 7)

    assert found is not None
    assert found.content is None
    assert found.distrust.startswith(f"it is a link of user {STRANGER}")


def test_a_link_leads_to_what_is_judged(file: Path) -> None:
    """The file at its end, that is, and from the folder in which the link is."""
    folder = file.with_name("folder")
    folder.mkdir()
    (folder / "link").symlink_to("../settings")
    assert read_judged("folder/link", 7) == FileRead(b"content")

    file.chmod(0o666)
    found = read_judged("folder/link", 7)

    assert found is not None
    assert "chmod go-w" in found.distrust


def test_another_file_that_takes_its_place_is_not_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is judged is open, and read by its descriptor: there is no moment in between."""
    moments: dict[str, Callable[..., Any]] = {
        name: getattr(trustedfile, name) for name in ("_read", "_distrust")
    }
    for name, function in moments.items():

        def replace_first(*arguments: Any, call: Callable[..., Any] = function) -> Any:
            hostile = file.with_name("hostile")
            hostile.write_bytes(b"hostile")
            hostile.chmod(0o666)
            hostile.replace(file)
            return call(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(trustedfile, name, replace_first)
            assert read_judged("settings", 7) == FileRead(b"content")
        assert file.read_bytes() == b"hostile"

        file.unlink()
        file.write_bytes(b"content")
        file.chmod(0o644)


def fifo(path: Path) -> None:
    os.mkfifo(path, 0o644)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path.name)
    path.chmod(0o644)


def folder(path: Path) -> None:
    path.mkdir(0o755)


@pytest.mark.parametrize("make", [fifo, unix_socket, folder])
def test_what_is_no_file_is_an_error_at_once(file: Path, make: Callable[[Path], None]) -> None:
    """Nobody waits for the writer of a FIFO; of others it is distrusted as any file."""
    file.unlink()
    make(file)
    with pytest.raises(OSError, match="no regular file"):
        read_judged("settings", 7)

    file.chmod(0o777)
    found = read_judged("settings", 7)

    assert found is not None
    assert (found.content, "chmod go-w" in found.distrust) == (None, True)


def test_a_link_to_nothing_or_to_itself_is_an_error(file: Path) -> None:
    """Somebody meant a file by it."""
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        read_judged("settings", 7)

    file.unlink()
    file.symlink_to("settings")
    with pytest.raises(OSError, match="Too many levels"):
        read_judged("settings", 7)


def test_no_more_is_read_than_is_allowed(file: Path) -> None:
    """One byte too many is an error, and so is a file of more than there is memory."""
    with pytest.raises(OSError, match="larger than 6 bytes"):
        read_judged("settings", 6)

    os.truncate(file, 1 << 42)
    with pytest.raises(OSError, match="larger than 7 bytes"):
        read_judged("settings", 7)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_what_may_not_be_read_is_an_error(file: Path) -> None:
    """It is ours, so it is meant for us."""
    file.chmod(0)
    with pytest.raises(PermissionError):
        read_judged("settings", 7)
