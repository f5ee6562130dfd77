"""Settings from outside: where they come from, which wins, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kinds import KINDS, PRIORITIES
from pydantic import ValidationError

from probate import ProcessManager, ResourceLimitExceeded, ResourceLimits
from probate.orchestrator import DEFAULT_DEADLINE, DEFAULT_GRACE
from probate.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without settings around it."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PROBATE_{name.upper()}", raising=False)
    return tmp_path


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
