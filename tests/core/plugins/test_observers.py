"""Observers: wrappers, monitoring and tracing see every call, and cost nothing when absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from plugins_things import FORMS, Thing, ThingResource, orchestrate

from probate import UnadoptableError, hookimpl

if TYPE_CHECKING:
    from collections.abc import Generator

PID = 7


class Recorder:
    """Notes every hook call that it is wrapped around, with what came of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []

    @hookimpl(wrapper=True)
    def cleanup(self, pid: int) -> Generator[None, Any, Any]:
        answers = yield
        self.calls.append(("cleanup", [stats.by_type for stats in answers]))
        return answers

    @hookimpl(wrapper=True)
    def quiesce(self, pid: int) -> Generator[None, Any, Any]:
        answers = yield
        self.calls.append(("quiesce", answers))
        return answers

    @hookimpl(wrapper=True)
    def adopt(self, pid: int, resource: object) -> Generator[None, Any, Any]:
        answer = yield
        self.calls.append(("adopt", answer))
        return answer


@pytest.mark.parametrize("plugin", FORMS)
def test_a_wrapper_sees_each_kinds_cleanup_once(plugin: type[ThingResource]) -> None:
    """One call per kind that owns something, in cleanup order, with that kind's answer alone."""
    plugins = [plugin(kind, place) for place, kind in enumerate("abcd")]
    orchestrator = orchestrate(*plugins)
    recorder = Recorder()
    orchestrator.register(recorder)
    for each in plugins[:3]:
        each.give(PID)
    orchestrator.cleanup_process(PID, grace=0)

    assert recorder.calls == [
        ("quiesce", [[]]), ("quiesce", [[]]), ("quiesce", [[]]),
        ("cleanup", [{"c": 1}]), ("cleanup", [{"b": 1}]), ("cleanup", [{"a": 1}]),
    ]  # fmt: skip


def test_two_observers_wrap_each_other() -> None:
    """As many as one likes; each sees what the inner ones made of it."""
    orchestrator = orchestrate(plugin := ThingResource())
    recorders = [Recorder(), Recorder()]
    for recorder in recorders:
        orchestrator.register(recorder)
    plugin.give(PID)
    orchestrator.cleanup_process(PID, grace=0)

    assert recorders[0].calls == recorders[1].calls
    assert len(recorders[0].calls) == 2


def test_an_observer_sees_adoptions() -> None:
    """The kinds are asked one after the other, until one answers."""
    orchestrator = orchestrate(ThingResource("a", 1), ThingResource("b", 2))
    recorder = Recorder()
    orchestrator.register(recorder)
    resource_id = orchestrator.adopt(PID, Thing())

    assert recorder.calls == [("adopt", resource_id)]


def test_an_observer_that_leaves_sees_no_more() -> None:
    """Pluggy's own unregister works for observers, at any time."""
    orchestrator = orchestrate(plugin := ThingResource())
    recorder = Recorder()
    orchestrator.register(recorder)
    orchestrator.cleanup_process(PID)
    orchestrator.plugin_manager.unregister(recorder)
    plugin.give(PID)

    assert orchestrator.cleanup_process(PID).is_success
    assert recorder.calls == []


def test_monitoring_sees_every_call_until_it_is_undone() -> None:
    """Pluggy's add_hookcall_monitoring: which hook, which plugins, which arguments."""
    orchestrator = orchestrate(first := ThingResource("a"), ThingResource("b"))
    seen: list[tuple[str, list[str], object]] = []

    def before(name: str, impls: Any, kwargs: Any) -> None:
        seen.append((name, [impl.plugin_name for impl in impls], kwargs["pid"]))

    undo = orchestrator.plugin_manager.add_hookcall_monitoring(before, lambda *_: None)
    first.give(PID)
    orchestrator.cleanup_process(PID, grace=0)
    undo()
    number = len(seen)
    first.give(PID)
    orchestrator.cleanup_process(PID, grace=0)

    assert ("cleanup", ["a"], PID) in seen
    assert ("quiesce", ["a"], PID) in seen
    assert {name for name, _, _ in seen} == {"has_resources", "quiesce", "cleanup"}
    assert len(seen) == number


def test_tracing_prints_every_call_until_it_is_undone() -> None:
    """Pluggy's enable_tracing, with a writer on the root tracer."""
    orchestrator = orchestrate(plugin := ThingResource())
    lines: list[str] = []
    orchestrator.plugin_manager.trace.root.setwriter(lines.append)
    undo = orchestrator.plugin_manager.enable_tracing()
    plugin.give(PID)
    orchestrator.cleanup_process(PID, grace=0)
    undo()
    text = "".join(lines)
    orchestrator.cleanup_process(PID, grace=0)

    assert "cleanup [hook]" in text
    assert f"pid: {PID}" in text
    assert "".join(lines) == text


class Costly(Thing):
    """Counts how often its repr is asked for."""

    reprs = 0

    def __repr__(self) -> str:
        type(self).reprs += 1
        raise RuntimeError("too costly")


@pytest.mark.parametrize("observed", [False, True])
def test_nothing_is_formatted_when_nobody_listens(observed: bool) -> None:
    """Tracing that formats its arguments when nobody listens turned 20 minutes into an hour."""
    Costly.reprs = 0
    orchestrator = orchestrate(plugin := ThingResource())
    if observed:
        orchestrator.register(Recorder())
    orchestrator.adopt(PID, thing := Costly())
    plugin.table.find(PID, thing)
    result = orchestrator.cleanup_process(PID)

    assert result.is_success
    assert result.stats.resources_freed == 1
    assert Costly.reprs == 0


def test_an_object_without_a_repr_is_unadoptable_like_any_other() -> None:
    """A repr that raises does not hide what is wrong."""

    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    with pytest.raises(UnadoptableError, match=r"no kind adopts this .*Mute") as caught:
        orchestrate(ThingResource()).adopt(PID, Mute())

    assert isinstance(caught.value, TypeError)


def test_an_adopt_that_raises_keeps_no_other_kind_from_looking() -> None:
    """The next kind takes it; if none does, the error says who failed."""

    class Bad(ThingResource):
        @hookimpl
        def adopt(self, pid: int, resource: object) -> None:
            raise OSError("cannot look")

    orchestrator = orchestrate(Bad("bad", 9), good := ThingResource("good", 1))
    orchestrator.adopt(PID, Thing())

    assert PID in good.table
    with pytest.raises(UnadoptableError) as caught:
        orchestrator.adopt(PID, 7)
    group = caught.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert group.exceptions[0].__notes__ == ["raised by adopt() of plugin 'bad'"]

    orchestrator.cleanup_process(PID)
