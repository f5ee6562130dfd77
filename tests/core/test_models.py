"""What crosses the border: accounts and records, frozen, JSON both ways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plugins_things import ThingResource, orchestrate, raising
from pydantic import BaseModel, ValidationError

from probate import (
    CleanupFailure,
    CleanupResult,
    CleanupStats,
    Leak,
    Outcome,
    PluginRecord,
    PluginStatus,
    ProcessInfo,
    ProcessState,
    ResourceInfo,
    ResourceRecord,
    ResourceUsage,
)
from probate.models import account_of, nothing_of

FAILURE = CleanupFailure(kind="a", resource="r", outcome=Outcome.BUSY, message="in use")
STATS = CleanupStats(
    resources_freed=2, bytes_freed=3, errors_encountered=1, duration_seconds=0.5, by_type={"a": 2}
)
INFO = ResourceInfo(id=9, description="thing", nbytes=4, acquired_at="here")
MODELS = [
    FAILURE,
    STATS,
    CleanupStats(errors=(FAILURE,), errors_encountered=1),
    CleanupResult(pid=42, stats=STATS, errors=(FAILURE,), leaks=(Leak(kind="a", resource=INFO),)),
    CleanupResult(pid=1),
    CleanupResult(pid=1, notes=("a file stays",)),
    CleanupResult(pid=1, stats=STATS, children=STATS),
    ResourceUsage(kind="a", count=1, nbytes=4, resources=(INFO,)),
    ResourceRecord(
        kind="files",
        description="a file",
        os_pid=4711,
        identity={"path": "/tmp/x", "inode": 12, "deep": {"list": [1, None, True, 0.5]}},
    ),
    PluginRecord(
        kind="a", distribution="probate-a", version="1.0", priority=5, status=PluginStatus.LOADED
    ),
    PluginRecord(
        kind="b", distribution="x", version="2", status=PluginStatus.FAILED, reason="ValueError: no"
    ),
    ProcessInfo(pid=1, name="p", state=ProcessState.RUNNING, created_at=1.5),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_json_goes_both_ways(model: BaseModel) -> None:
    """What is written is read as the same; so is the plain dictionary."""
    text = model.model_dump_json()

    assert type(model).model_validate_json(text) == model
    assert type(model).model_validate(json.loads(text)) == model
    assert type(model).model_validate(model.model_dump()) == model


def test_an_account_made_without_checks_is_as_one_made_with_them() -> None:
    """What is made at each termination skips pydantic, and nobody can tell."""
    leaks = (Leak(kind="a", resource=INFO),)
    notes = ("a file stays",)
    quick = account_of(
        42,
        by_type={"a": 2, "b": 3},
        nbytes=3,
        seconds=0.5,
        errors=(FAILURE,),
        leaks=leaks,
        notes=notes,
    )
    stats = CleanupStats(
        resources_freed=5,
        bytes_freed=3,
        errors_encountered=1,
        duration_seconds=0.5,
        by_type={"a": 2, "b": 3},
        errors=(),
    )
    checked = CleanupResult(
        pid=42,
        stats=stats,
        errors=(FAILURE,),
        leaks=leaks,
        notes=notes,
        children=CleanupStats(),
    )

    for made, expected in (
        (quick, checked),
        (
            nothing_of(7),
            CleanupResult(
                pid=7, stats=CleanupStats(), errors=(), leaks=(), notes=(), children=CleanupStats()
            ),
        ),
    ):
        assert made == expected
        assert made.model_fields_set == expected.model_fields_set
        assert made.model_dump_json() == expected.model_dump_json()
        assert (repr(made), made.model_copy()) == (repr(expected), expected)
        with pytest.raises(ValidationError, match="frozen"):
            made.pid = 8


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_models_are_frozen(model: BaseModel) -> None:
    """No field of an account can be changed afterwards."""
    name = next(iter(type(model).model_fields))

    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, name, getattr(model, name))


def test_json_tells_success_and_freedom() -> None:
    """Programs in other languages need not work them out."""
    told = json.loads(MODELS[3].model_dump_json())

    assert (told["is_success"], told["has_freed_resources"]) == (False, True)
    assert told["errors"] == [
        {"kind": "a", "resource": "r", "outcome": "busy", "message": "in use"}
    ]
    assert told["stats"]["by_type"] == {"a": 2}


COUNTS = st.integers(0, 10**9)
ALL_STATS = st.builds(
    CleanupStats,
    resources_freed=COUNTS,
    bytes_freed=COUNTS,
    errors_encountered=COUNTS,
    duration_seconds=st.integers(0, 1000).map(float),
    by_type=st.dictionaries(st.sampled_from("abc"), COUNTS),
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(ALL_STATS, ALL_STATS, ALL_STATS)
def test_merging_is_addition(a: CleanupStats, b: CleanupStats, c: CleanupStats) -> None:
    """`+` adds every figure and every kind; nothing is its zero; the order does not matter."""
    merged = a + b

    assert merged.resources_freed == a.resources_freed + b.resources_freed
    assert merged.bytes_freed == a.bytes_freed + b.bytes_freed
    assert merged.errors_encountered == a.errors_encountered + b.errors_encountered
    assert merged.duration_seconds == a.duration_seconds + b.duration_seconds
    assert merged.by_type == {
        kind: a.by_type.get(kind, 0) + b.by_type.get(kind, 0) for kind in {*a.by_type, *b.by_type}
    }
    assert a + CleanupStats() == CleanupStats() + a == a
    assert a + b == b + a
    assert (a + b) + c == a + (b + c) == CleanupStats.merged([a, b, c])
    assert CleanupStats.merged([]) == CleanupStats()


def test_errors_are_merged_in_order() -> None:
    """First a's, then b's."""
    other = FAILURE.model_copy(update={"resource": "s"})
    merged = CleanupStats(errors=(FAILURE,)) + CleanupStats(errors=(other,))

    assert merged.errors == (FAILURE, other)


@pytest.mark.parametrize("other", [0, None, 1.5, "x"])
def test_only_accounts_can_be_added(other: Any) -> None:
    """TypeError for anything else."""
    with pytest.raises(TypeError):
        STATS + other


@pytest.mark.parametrize(
    "field", ["resources_freed", "bytes_freed", "errors_encountered", "duration_seconds"]
)
def test_negative_figures_are_refused(field: str) -> None:
    """Nothing is freed a negative number of times."""
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        CleanupStats.model_validate({field: -1})
    with pytest.raises(ValidationError):
        CleanupStats.model_validate({"by_type": {"a": -1}})


def test_the_display_is_exact() -> None:
    """`PID 42 cleanup: 17 resources freed, 4096 bytes freed, 0 errors`, word for word."""
    stats = CleanupStats(resources_freed=17, bytes_freed=4096)
    failed = CleanupStats(resources_freed=1, bytes_freed=1, errors_encountered=1)

    assert (
        str(CleanupResult(pid=42, stats=stats))
        == "PID 42 cleanup: 17 resources freed, 4096 bytes freed, 0 errors"
    )
    assert (
        str(CleanupResult(pid=1, stats=failed))
        == "PID 1 cleanup: 1 resources freed, 1 bytes freed, 1 errors"
    )


@pytest.mark.parametrize(
    "text", ["two\nlines", "tabs\tand\r\nmore", "  spaces   ", "\x0b\x0c\x85 "]
)
def test_a_failure_is_one_line(text: str) -> None:
    """Whatever a plugin writes, the str of an error is a single line."""
    failure = CleanupFailure(kind="k", resource=text, outcome=Outcome.FAILED, message=text)

    assert len(str(failure).splitlines()) == 1
    assert str(failure).startswith("k: ")
    assert failure.message == text


def test_undecodable_names_survive_json() -> None:
    """A file name that is no UTF-8 comes as surrogates (PEP 383); the account is still JSON."""
    plugin = ThingResource()
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    plugin.give(7, name, raising(OSError(f"cannot unlink {name}")))
    orchestrator = orchestrate(plugin)
    usage = orchestrator.usage(7)["things"]
    result = orchestrator.cleanup_process(7)

    assert CleanupResult.model_validate_json(result.model_dump_json()) == result
    assert ResourceUsage.model_validate_json(usage.model_dump_json()) == usage
    assert "caf" in result.errors[0].resource


def test_success_is_the_absence_of_errors() -> None:
    """And having freed something is another matter."""
    for freed in (0, 1):
        for errors in (0, 1):
            stats = CleanupStats(resources_freed=freed, errors_encountered=errors)
            result = CleanupResult(pid=1, stats=stats)

            assert (result.is_success, result.has_freed_resources) == (errors == 0, freed > 0)


def test_a_leak_names_kind_resource_and_place() -> None:
    """With a site and without."""
    bare = Leak(kind="a", resource=ResourceInfo(id=1, description="thing"))

    assert str(bare) == "a: thing was never released"
    assert str(Leak(kind="a", resource=INFO)).endswith("acquired at\nhere")
