"""One plugin's failure, of whatever sort, neither stops the others nor goes unsaid."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from core_scripts import run_script
from core_threads import at_once
from plugins_things import (
    InlineThingResource,
    Thing,
    ThingResource,
    managed,
    orchestrate,
    raising,
)

from probate import CleanupResult, CleanupStats, Outcome, ResourceOrchestrator, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

PID = 7
ERRORS = [
    ValueError,
    StopIteration,
    AssertionError,
    asyncio.CancelledError,
    GeneratorExit,
    BaseException,
    BaseExceptionGroup,
]
INTERRUPTS = [KeyboardInterrupt, SystemExit]
WATCHED, INLINE = ThingResource, InlineThingResource


def three(plugin: type[ThingResource]) -> tuple[ResourceOrchestrator, list[ThingResource]]:
    """Kinds c, b, a in cleanup order, each owning one thing."""
    plugins = [plugin(kind, priority) for priority, kind in enumerate("abc")]
    for each in plugins:
        each.give(PID)
    return orchestrate(*plugins), plugins


def make(error: type[BaseException]) -> BaseException:
    return error("bad", [ValueError("inner")]) if error is BaseExceptionGroup else error("bad")


def said(result: CleanupResult) -> list[tuple[str, str, str]]:
    return [(e.kind, e.resource, e.message) for e in result.errors]


@pytest.mark.parametrize("plugin", [WATCHED, INLINE])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("hook", ["has_resources", "quiesce", "cleanup"])
def test_a_hook_that_raises_is_an_error_of_its_kind_alone(
    plugin: type[ThingResource], error: type[BaseException], hook: str
) -> None:
    """Pluggy's first exception stops the rest, and `except Exception` misses cancellation."""
    orchestrator, plugins = three(plugin)
    plugins[1].faults[hook] = raising(make(error))
    result = orchestrator.cleanup_process(PID, grace=0, deadline=5)
    frees_all_the_same = hook != "cleanup"

    assert {each.kind: PID in each.table for each in plugins} == {
        "a": False,
        "b": not frees_all_the_same,
        "c": False,
    }
    assert result.stats.by_type == {"a": 1, "c": 1} | ({"b": 1} if frees_all_the_same else {})
    assert [(e.kind, e.resource, e.outcome) for e in result.errors] == [
        ("b", f"{hook}()", Outcome.FAILED)
    ]
    assert "bad" in result.errors[0].message
    assert not result.is_success


@pytest.mark.parametrize("plugin", [WATCHED, INLINE])
@pytest.mark.parametrize("error", INTERRUPTS)
@pytest.mark.parametrize("hook", ["has_resources", "quiesce", "cleanup", "release"])
def test_an_interrupt_is_raised_when_all_is_done(
    plugin: type[ThingResource], error: type[BaseException], hook: str
) -> None:
    """KeyboardInterrupt and SystemExit out of a hook: the others are freed first."""
    orchestrator, plugins = three(plugin)
    interrupt = error("bad")
    if hook == "release":
        plugins[1].give(PID, "interrupting", raising(interrupt))
    else:
        plugins[1].faults[hook] = raising(interrupt)

    with pytest.raises(error) as caught:
        orchestrator.cleanup_process(PID, grace=0, deadline=5)

    assert caught.value is interrupt
    assert [PID in each.table for each in plugins] == [False, hook == "cleanup", False]


@pytest.mark.parametrize("error", [*ERRORS, *INTERRUPTS])
def test_a_usage_that_raises_costs_the_leak_report_only(error: type[BaseException]) -> None:
    """The end of a scope asks for usage; whatever comes of that, all is released and accounted."""

    class BadUsage(ThingResource):
        @hookimpl
        def usage(self, pid: int) -> Any:
            raise make(error)

    good, bad = ThingResource("good", 1), BadUsage("bad", 2)
    manager = managed(good, bad)
    scope = manager.process("p")
    process = scope.__enter__()
    for plugin in (good, bad):
        plugin.give(process.pid)
    try:
        scope.__exit__(None, None, None)
    except (KeyboardInterrupt, SystemExit):
        assert error in INTERRUPTS

    assert process.result is not None
    assert process.result.stats.by_type == {"bad": 1, "good": 1}
    assert [leak.kind for leak in process.result.leaks] == ["good"]
    if error not in INTERRUPTS:
        assert [(e.kind, e.resource) for e in process.result.errors] == [("bad", "usage()")]
    assert manager.list_processes() == []


@pytest.mark.parametrize("answer", [None, 7, "text", {}, CleanupStats, [CleanupStats()]])
@pytest.mark.parametrize("plugin", [WATCHED, INLINE])
def test_a_cleanup_that_answers_nonsense_is_an_error(
    plugin: type[ThingResource], answer: object
) -> None:
    """No CleanupStats, no count: the account says what came instead."""
    orchestrator, plugins = three(plugin)

    def cleanup() -> object:
        plugins[1].table.cleanup(PID, Thing.release)
        return answer

    plugins[1].faults["cleanup"] = cleanup
    result = orchestrator.cleanup_process(PID, grace=0)

    assert result.stats.by_type == {"a": 1, "c": 1}
    assert [(e.kind, e.resource) for e in result.errors] == [("b", "cleanup()")]
    assert "expected CleanupStats, got" in result.errors[0].message


class DuckFuture:
    """Quacks enough to look like a future, and is none of ours."""

    def add_done_callback(self, callback: object) -> None: ...


class BrokenFuture(DuckFuture):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


@pytest.mark.parametrize(
    "answer", [7, "text", [7], [None], [DuckFuture()], [BrokenFuture()], threading.Event()]
)
@pytest.mark.parametrize("plugin", [WATCHED, INLINE])
def test_a_quiesce_that_answers_nonsense_is_an_error(
    plugin: type[ThingResource], answer: object
) -> None:
    """What cannot be waited for is not waited for; everything is freed."""
    orchestrator, plugins = three(plugin)
    plugins[1].faults["quiesce"] = lambda: answer
    result = orchestrator.cleanup_process(PID, grace=0.2)

    assert result.stats.by_type == {"a": 1, "b": 1, "c": 1}
    assert [(e.kind, e.resource) for e in result.errors] == [("b", "quiesce()")]


class Unspeakable(Exception):  # noqa: N818  it is what it is
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("hook", ["has_resources", "quiesce", "cleanup"])
def test_an_error_without_words_is_an_error_like_any_other(hook: str) -> None:
    """An exception whose text raises is named by its class."""
    orchestrator, plugins = three(ThingResource)
    plugins[1].faults[hook] = raising(Unspeakable())
    result = orchestrator.cleanup_process(PID, grace=0)

    assert result.stats.by_type.keys() >= {"a", "c"}
    assert [(e.kind, e.resource) for e in result.errors] == [("b", f"{hook}()")]
    assert "Unspeakable" in result.errors[0].message


@pytest.fixture
def hang() -> Iterator[Callable[[], object]]:
    """Hangs until the test is over; never longer than five seconds."""
    over = threading.Event()
    yield lambda: over.wait(5)
    over.set()


@pytest.mark.parametrize("hook", ["quiesce", "cleanup"])
def test_a_hook_that_hangs_is_left_behind_at_the_deadline(
    hook: str, hang: Callable[[], object]
) -> None:
    """The others are freed, also those that come after it; the account says TIMEOUT."""
    orchestrator, plugins = three(ThingResource)
    plugins[1].faults[hook] = hang
    began = time.monotonic()
    result = orchestrator.cleanup_process(PID, grace=0, deadline=0.3)

    assert time.monotonic() - began < 3
    assert result.stats.by_type.keys() >= {"a", "c"}
    assert ("b", f"{hook}()", Outcome.TIMEOUT) in {
        (e.kind, e.resource, e.outcome) for e in result.errors
    }


def test_a_quiesce_that_hangs_as_a_generator_is_left_behind_too(
    hang: Callable[[], object],
) -> None:
    """An Iterable[Future] may be a lazy one; it is watched while it is run through."""
    orchestrator, plugins = three(ThingResource)

    def lazy() -> Generator[Any, None, None]:
        hang()
        yield from ()

    plugins[1].faults["quiesce"] = lazy
    began = time.monotonic()
    result = orchestrator.cleanup_process(PID, grace=0, deadline=0.3)

    assert time.monotonic() - began < 3
    assert result.stats.by_type == {"a": 1, "b": 1, "c": 1}
    assert [(e.kind, e.outcome) for e in result.errors] == [("b", Outcome.TIMEOUT)]


class Breaks:
    """An observer that breaks one hook, before or after the plugin has its turn."""

    def __init__(self, when: str, error: BaseException) -> None:
        self.when = when
        self.error = error

    def around(self) -> Generator[None, Any, Any]:
        if self.when == "before":
            raise self.error
        answer = yield
        if self.when == "after":
            raise self.error
        return answer


class BreaksCleanup(Breaks):
    @hookimpl(wrapper=True)
    def cleanup(self, pid: int) -> Generator[None, Any, Any]:
        return (yield from self.around())


class BreaksQuiesce(Breaks):
    @hookimpl(wrapper=True)
    def quiesce(self, pid: int) -> Generator[None, Any, Any]:
        return (yield from self.around())


class BreaksQuery(Breaks):
    @hookimpl(wrapper=True)
    def has_resources(self, pid: int) -> Generator[None, Any, Any]:
        return (yield from self.around())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("observer", [BreaksCleanup, BreaksQuiesce])
def test_an_observer_that_breaks_keeps_nothing_from_being_freed(
    observer: type[Breaks], when: str, error: type[BaseException]
) -> None:
    """Everything is freed, and the account names the observer's failure."""
    orchestrator, plugins = three(ThingResource)
    orchestrator.register(observer(when, error("bad observer")))
    result = orchestrator.cleanup_process(PID, grace=0)

    assert [PID in each.table for each in plugins] == [False] * 3
    assert {e.kind for e in result.errors} == {"a", "b", "c"}
    assert all("bad observer" in e.message for e in result.errors)


def test_what_is_freed_past_a_broken_observer_is_counted() -> None:
    """The second try, by the plugin itself, is accounted for like any other."""
    orchestrator, _ = three(ThingResource)
    orchestrator.register(BreaksCleanup("before", ValueError("bad observer")))

    assert orchestrator.cleanup_process(PID, grace=0).stats.by_type == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit])
def test_an_observer_that_breaks_the_query_hides_nothing(
    when: str, error: type[BaseException]
) -> None:
    """The plugins are asked themselves then."""
    orchestrator, _ = three(ThingResource)
    orchestrator.register(BreaksQuery(when, error("bad observer")))

    assert orchestrator.has_resources(PID)
    assert not orchestrator.has_resources(PID + 1)
    assert orchestrator.cleanup_process(PID, grace=0).stats.by_type == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("error", INTERRUPTS)
def test_asking_does_not_swallow_an_interrupt(error: type[BaseException]) -> None:
    """A Ctrl-C that falls into has_resources or usage reaches the caller."""
    orchestrator, plugins = three(ThingResource)
    plugins[1].faults["has_resources"] = raising(error())

    with pytest.raises(error):
        orchestrator.has_resources(PID)
    with pytest.raises(error):
        orchestrator.usage(PID)


def test_where_no_thread_can_be_started_the_hooks_run_all_the_same() -> None:
    """Out of threads, or at interpreter shutdown: unwatched, but released."""
    orchestrator, plugins = three(ThingResource)
    before = threading.stack_size(1 << 47)
    try:
        with pytest.raises(RuntimeError, match="start new thread"):
            threading.Thread(target=int).start()
        result = orchestrator.cleanup_process(PID, grace=0, deadline=2)
    finally:
        threading.stack_size(before)

    assert result.is_success, result.errors
    assert [PID in each.table for each in plugins] == [False] * 3


def test_a_hung_thread_does_not_keep_the_interpreter_from_exiting() -> None:
    """A call that hangs for ever is left to a daemon; the program ends."""
    script = run_script(
        """
import threading
from plugins_things import ThingResource, orchestrate
plugin = ThingResource()
plugin.give(7)
plugin.faults["cleanup"] = threading.Event().wait
result = orchestrate(plugin).cleanup_process(7, grace=0, deadline=0.1)
print(result, result.errors[0].outcome)
""",
        timeout=15,
    )

    assert (script.returncode, script.stderr) == (0, "")
    assert script.stdout == "PID 7 cleanup: 0 resources freed, 0 bytes freed, 1 errors timeout\n"


def test_one_pids_failure_is_no_others() -> None:
    """Terminations of different pids share plugins and nothing else."""
    orchestrator, plugins = three(ThingResource)
    plugins[1].give(8, "bad", raising(OSError("no")))
    first, second = at_once(
        [lambda pid=pid: orchestrator.cleanup_process(pid, grace=0) for pid in (PID, 8)]  # type: ignore[misc]  # mypy cannot infer it
    )

    assert isinstance(first, CleanupResult)
    assert isinstance(second, CleanupResult)
    assert first.is_success
    assert said(second) == [("b", "bad", "OSError: no")]


def test_what_was_busy_and_comes_free_by_itself_is_no_error() -> None:
    """Gone before the next pass: nobody's success, and nothing to complain about."""
    orchestrator, (first, second, _) = three(ThingResource)
    thing = second.give(PID, "busy", lambda: Outcome.BUSY)

    def let_go() -> CleanupStats:
        second.table.release(PID, second.table.find(PID, thing))
        return first.table.cleanup(PID, Thing.release)

    first.faults["cleanup"] = let_go
    result = orchestrator.cleanup_process(PID, grace=0)

    assert result.is_success, result.errors
    assert result.stats.by_type == {"a": 1, "b": 1, "c": 1}
