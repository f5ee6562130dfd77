"""The files of settings: which are read, which ignored, and what is said of the others."""

from __future__ import annotations

import os
import re
import warnings
from typing import TYPE_CHECKING

import pytest

from probate.settings import Settings, SettingsError, SettingsWarning

if TYPE_CHECKING:
    from pathlib import Path

#: The same setting in either file.
TEXTS = {"probate.toml": "grace = 1\n", "pyproject.toml": "[tool.probate]\ngrace = 1\n"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without settings around it."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("PROBATE_"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_others_may_write_is_ignored_with_a_warning(folder: Path, name: str) -> None:
    """Whoever may write it could keep kinds from being cleaned: it is named, with the mend."""
    path = folder / name
    path.write_text(TEXTS[name])
    assert Settings().grace == 1

    path.chmod(0o664)
    with pytest.warns(
        SettingsWarning, match=re.escape(f"{path} is ignored: others than")
    ) as caught:
        settings = Settings()

    assert settings.model_fields_set == set()
    assert [str(each.message).partition("chmod ")[2] for each in caught] == [f"go-w {path}"]
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.needs_root(reason="gives files away")
@pytest.mark.parametrize("name", TEXTS)
def test_a_file_of_another_user_is_ignored_with_a_warning(folder: Path, name: str) -> None:
    """Of any but this one and root, also where this one is root."""
    path = folder / name
    path.write_text(TEXTS[name])
    os.chown(path, 54321, 54321)

    with pytest.warns(SettingsWarning, match=re.escape(f"{path} is ignored: it belongs to user")):
        settings = Settings()

    assert settings.model_fields_set == set()


def test_what_is_ignored_cannot_be_wrong(folder: Path) -> None:
    """Nobody else can keep a program from starting."""
    path = folder / "probate.toml"
    path.write_text("[")
    path.chmod(0o666)

    with pytest.warns(SettingsWarning, match="is ignored"):
        Settings()


def test_a_pyproject_that_sets_nothing_of_ours_is_not_worth_a_word(folder: Path) -> None:
    """Many are writable by a group."""
    path = folder / "pyproject.toml"
    path.write_text("[project]\nname = 'x'\n")
    path.chmod(0o664)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Settings()

    assert said == []


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("probate.toml", b"[grace", "Expected"),
        ("pyproject.toml", b"[tool.probate", "Expected"),
        ("pyproject.toml", b"[tool]\nprobate = 1", "tool.probate is no table"),
        ("pyproject.toml", b"tool = 1", "tool.probate is no table"),
        ("probate.toml", "grace = 1".encode("utf-16"), "'utf-8' codec can't decode"),
        ("probate.toml", b"\0", "Invalid statement"),
        ("probate.toml", b"x = " + b"[" * 5000, "recursion"),
        ("probate.toml", b"x = " + b"9" * 5000, "4300 digits"),
        ("probate.toml", b"#" * (1 << 20) + b"\n", "larger than 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    folder: Path, name: str, content: bytes, why: str
) -> None:
    """By one sort of error, whatever is wrong with it: it is not one without settings."""
    (folder / name).write_bytes(content)

    with pytest.raises(SettingsError, match=why) as caught:
        Settings()

    assert str(caught.value).startswith(f"{folder / name} cannot be read: ")


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_in_the_place_of_a_file_is_named(folder: Path, name: str) -> None:
    """A folder, such as containers make of a file that is not there; a FIFO, without a wait."""
    path = folder / name
    path.mkdir()
    with pytest.raises(SettingsError, match=re.escape(f"{path} cannot be read: It is no regular")):
        Settings()

    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(SettingsError, match=re.escape(f"{path} cannot be read: It is no regular")):
        Settings()

    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(SettingsError, match=re.escape(f"{path} cannot be read: No such file")):
        Settings()


def test_a_byte_order_mark_is_not_minded(folder: Path) -> None:
    """Some editors begin a file with it, and end lines with a carriage return."""
    (folder / "probate.toml").write_bytes(b"\xef\xbb\xbfgrace = 1\r\n")

    assert Settings().grace == 1


def test_a_folder_that_is_gone_has_no_files(folder: Path) -> None:
    """Nor has it a path by which they could be named."""
    gone = folder / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()

    assert Settings().model_fields_set == set()
