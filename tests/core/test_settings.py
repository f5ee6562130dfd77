"""Settings from outside: where they come from, which wins, and what is refused."""

from __future__ import annotations

import os
import re
import sys
import warnings
from typing import TYPE_CHECKING

import pytest
from documents import REPOSITORY
from kinds import KINDS, PRIORITIES
from pydantic import ValidationError

from probate import (
    ProbateError,
    ProcessManager,
    ResourceLimitExceeded,
    ResourceLimits,
    UnknownKindError,
)
from probate.orchestrator import DEFAULT_DEADLINE, DEFAULT_GRACE
from probate.settings import MARKS, Settings, SettingsError, SettingsWarning

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without settings around it."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("PROBATE_"):
            monkeypatch.delenv(name)
    return tmp_path


def test_without_the_extra_a_variable_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only then is it needed; nothing that is set is ignored."""
    monkeypatch.setitem(sys.modules, "pydantic_settings", None)

    assert Settings(grace=1).grace == 1

    monkeypatch.setenv("PROBATE_GRACE", "1")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'probate\[settings\]'"):
        Settings()


def test_without_any_the_defaults_hold() -> None:
    """What the builder does by itself."""
    settings = Settings()

    assert (settings.grace, settings.deadline) == (DEFAULT_GRACE, DEFAULT_DEADLINE)
    assert (settings.disable, settings.priorities, settings.limits) == ((), {}, None)
    assert settings.trace is False


def test_the_environment_wins_over_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, then PROBATE_*, then probate.toml, then [tool.probate] of pyproject.toml."""
    (folder / "pyproject.toml").write_text(
        "[tool.probate]\ngrace = 1\ndeadline = 1\ntrace = true\ndisable = ['rings']\n"
        "[tool.other]\ngrace = 99\n"
    )
    (folder / "probate.toml").write_text("grace = 2\ndeadline = 4\ndisable = ['mmap', 'tasks']\n")
    monkeypatch.setenv("PROBATE_GRACE", "3")
    monkeypatch.setenv("PROBATE_DISABLE", "sockets, signals")

    settings = Settings(disable=("tasks",))

    assert settings.disable == ("tasks",)
    assert Settings().disable == ("sockets", "signals")
    assert (settings.grace, settings.deadline, settings.trace) == (3, 4, True)


def test_a_grace_that_is_never_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline counts from the same moment; a short deadline alone is not an error."""
    monkeypatch.setenv("PROBATE_DEADLINE", str(DEFAULT_GRACE / 2))
    assert Settings().grace == DEFAULT_GRACE

    monkeypatch.setenv("PROBATE_GRACE", "60")
    with pytest.raises(ValidationError, match=r"a grace of 60\.0 seconds is never reached"):
        Settings()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("garce = 1", "garce"),
        ("grace = -1", "grace"),
        ("grace = 'long'", "grace"),
        ("[limits]\nmax_conut = 1", "limits.max_conut"),
        ("[priorities]\nmmap = 'high'", "priorities.mmap"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, text: str, where: str) -> None:
    """A misspelt setting does not silently do nothing."""
    (folder / "probate.toml").write_text(text)

    with pytest.raises(ValidationError) as caught:
        Settings()

    assert [".".join(map(str, each["loc"])) for each in caught.value.errors()] == [where]


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("garce = 1", "did you mean grace?"),
        ("[limits]\nmax_conut = 1", "did you mean max_count?"),
        ("[limits.by_kind.mmap]\nmax_bites = 1", "did you mean max_bytes?"),
        ("zzz = 1", "known are disable, priorities, grace, deadline, limits, journal, trace"),
        ("_env_file = 'x'", "known are disable, "),
        (f"limits.{'a.' * 5000}b = 1", "known are max_count, "),
    ],
)
def test_an_unknown_key_is_named_with_its_file_and_the_nearest(
    folder: Path, text: str, nearest: str
) -> None:
    """However deep, and in both files; options of pydantic-settings itself are none."""
    (folder / "probate.toml").write_text(text)
    (folder / "pyproject.toml").write_text(f"[tool.probate]\n{text.replace('[', '[tool.probate.')}")

    with pytest.raises(SettingsError) as caught:
        Settings()

    assert f"({folder / 'probate.toml'}; {nearest}" in str(caught.value)


def test_an_error_is_ours_and_pydantics_and_names_each_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is caught, all that is wrong is in it, in a line, each with where it is from."""
    (folder / "probate.toml").write_text("deadline = -1\ntrace = 3\n")
    (folder / "pyproject.toml").write_text("[tool.probate]\nlimits = 3\ntrace = true\n")
    monkeypatch.setenv("PROBATE_PRIORITIES", '{"mmap": 1')
    monkeypatch.setenv("probate_grace", "soon")

    with pytest.raises(ProbateError) as caught:
        Settings()

    assert isinstance(caught.value, ValidationError)
    assert isinstance(caught.value, ValueError)
    found = {problem.partition(": ")[0]: problem for problem in str(caught.value).split("; ")}
    assert {name: problem.rpartition("(")[2] for name, problem in found.items()} == {
        "priorities": "PROBATE_PRIORITIES)",
        "grace": "probate_grace)",
        "deadline": f"{folder / 'probate.toml'})",
        "trace": f"{folder / 'probate.toml'})",
        "limits": f"{folder / 'pyproject.toml'})",
    }


def test_what_is_given_by_hand_has_no_source() -> None:
    """It is in the program that is being read."""
    with pytest.raises(SettingsError) as caught:
        Settings(grace=-1)

    assert str(caught.value) == "grace: Input should be greater than or equal to 0"


def test_both_sources_of_a_grace_that_is_never_reached_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may be in a file, the other in the environment."""
    (folder / "probate.toml").write_text("deadline = 1\n")
    monkeypatch.setenv("PROBATE_GRACE", "60")

    with pytest.raises(SettingsError, match=r"never reached") as caught:
        Settings()

    assert str(caught.value).endswith(f"(PROBATE_GRACE, {folder / 'probate.toml'})")


def test_a_deadline_of_null_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that hangs is waited for, for ever, by whoever wants that."""
    monkeypatch.setenv("PROBATE_DEADLINE", "null")

    assert Settings().deadline is None


def test_tables_are_merged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value by value: each is that of the source that comes first."""
    (folder / "pyproject.toml").write_text(
        "[tool.probate.limits]\nmax_count = 1\nmax_bytes = 1\n"
        "[tool.probate.limits.by_kind.mmap]\nmax_count = 1\nmax_bytes = 1\n"
    )
    (folder / "probate.toml").write_text("[limits.by_kind.mmap]\nmax_count = 2\n")
    monkeypatch.setenv("PROBATE_LIMITS", '{"max_bytes": 3}')

    assert Settings().limits == ResourceLimits.model_validate(
        {"max_count": 1, "max_bytes": 3, "by_kind": {"mmap": {"max_count": 2, "max_bytes": 1}}}
    )


@pytest.mark.parametrize(
    ("setting", "variable"),
    [
        ("disable = ['mmpa']", ("PROBATE_DISABLE", "mmap, mmpa")),
        ("[priorities]\nmmap = 1\nmmpa = 2", ("PROBATE_PRIORITIES", '{"mmpa": 2}')),
        (
            "[limits.by_kind.mmpa]\nmax_count = 1",
            ("PROBATE_LIMITS", '{"by_kind": {"mmpa": {"max_count": 1}}}'),
        ),
    ],
)
def test_an_unknown_kind_is_an_error_that_names_the_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch, setting: str, variable: tuple[str, str]
) -> None:
    """It would silently do nothing: what there is is listed, and the file or variable named."""
    (folder / "probate.toml").write_text(setting)
    with pytest.raises(UnknownKindError, match="kind 'mmpa'; registered: mmap, tasks") as caught:
        Settings().check_kinds({"tasks", "mmap"})
    assert f" by {folder / 'probate.toml'};" in str(caught.value)

    monkeypatch.setenv(*variable)
    with pytest.raises(UnknownKindError, match=f" by {variable[0]};"):
        Settings().check_kinds({"tasks", "mmap"})
    Settings().check_kinds({"tasks", "mmap", "mmpa"})


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("PROBATE_GRCE", "did you mean PROBATE_GRACE?"),
        ("Probate_Limits__Max_Count", "did you mean PROBATE_LIMITS?"),
        ("PROBATE_ZZZ", "known are PROBATE_DISABLE, "),
    ],
)
def test_an_unknown_variable_warns(
    monkeypatch: pytest.MonkeyPatch, variable: str, said: str
) -> None:
    """It may be another program's, and so is no error; the line of the program is shown."""
    monkeypatch.setenv(variable, "1")

    with pytest.warns(SettingsWarning, match=re.escape(said)) as caught:
        Settings()

    assert [each.filename for each in caught] == [__file__]
    assert variable in str(caught[0].message)


def test_our_own_marks_are_no_unknown_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may itself run in a tree of another one, and finds its mark."""
    for mark in MARKS:
        monkeypatch.setenv(mark, "1")

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Settings()

    assert said == []


def test_each_variable_of_ours_is_a_setting_or_a_mark() -> None:
    """One list has them all: what is not in it would warn whoever runs beneath a host."""
    sources = {*REPOSITORY.glob("core/src/**/*.py"), *REPOSITORY.glob("plugins/*/src/**/*.py")}
    files = {REPOSITORY / "Makefile", *sources} - {REPOSITORY / "core/src/probate/settings.py"}
    found = {name for path in files for name in re.findall(r"\bPROBATE_[A-Z]+", path.read_text())}

    assert found - {f"PROBATE_{name.upper()}" for name in Settings.model_fields} == MARKS


def test_a_manager_is_built_by_them(folder: Path) -> None:
    """Kinds, priorities and limits reach the manager; later methods of the builder win."""
    (folder / "probate.toml").write_text(
        "disable = ['rings', 'tasks']\ngrace = 0\n"
        "[priorities]\nsockets = 99\n[limits.by_kind.sockets]\nmax_count = 1\n"
    )
    settings = Settings()
    with ProcessManager.builder().with_settings(settings).build() as manager:
        process = manager.create_process("limited")
        sockets = manager.orchestrator["sockets"].manager
        sockets.bind_udp(process.pid, ("127.0.0.1", 0))
        with pytest.raises(ResourceLimitExceeded):
            sockets.bind_udp(process.pid, ("127.0.0.1", 0))

        disabled = {"sockets", "rings", "tasks"}
        others = [kind for kind in KINDS if kind not in disabled]
        assert manager.orchestrator.registered_types() == sorted(
            ["sockets", *others], key=lambda kind: -99 if kind == "sockets" else -PRIORITIES[kind]
        )

    builder = ProcessManager.builder().with_settings(settings).with_limits(ResourceLimits())
    with builder.build() as manager:
        process = manager.create_process("unlimited")
        for _ in range(2):
            manager.orchestrator["sockets"].manager.bind_udp(process.pid, ("127.0.0.1", 0))

        assert process.usage()["sockets"].count == 2


def test_a_manager_names_the_setting_that_has_an_unknown_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the command does: by the variable that it is from."""
    monkeypatch.setenv("PROBATE_DISABLE", "sokets")

    with pytest.raises(UnknownKindError, match="disable by PROBATE_DISABLE"):
        ProcessManager.builder().with_settings(Settings()).build()
