"""A process that ends normally with things still owned has leaked them."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING

import pytest
from plugins_things import InlineThingResource, Thing, ThingResource, managed, orchestrate

from probate import ProcessManager

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import CleanupResult, Process


def result_of(process: Process) -> CleanupResult:
    assert process.result is not None

    return process.result


def test_a_normal_end_lists_leaks_and_releases_them() -> None:
    """All kinds, in cleanup order, each described; and all is freed all the same."""
    high, low = ThingResource("high", 2), ThingResource("low", 1)
    with managed(high, low) as manager, manager.process("careless") as process:
        things = [low.give(process.pid, "l", nbytes=3), high.give(process.pid, "h")]
        given_back = low.table.add(process.pid, Thing("returned"))
        low.table.release(process.pid, given_back)
    result = result_of(process)

    assert [(leak.kind, leak.resource.description) for leak in result.leaks] == [
        ("high", "h"), ("low", "l"),
    ]  # fmt: skip
    assert result.leaks[1].resource.nbytes == 3
    assert [thing.releases for thing in things] == [1, 1]
    assert result.is_success


def test_an_async_scope_lists_leaks_too() -> None:
    """`async with` is no different."""
    plugin = ThingResource()

    async def main() -> Process:
        async with managed(plugin) as manager, manager.process("careless") as process:
            plugin.give(process.pid)
        return process

    assert len(result_of(asyncio.run(main())).leaks) == 1


def by_exception(manager: ProcessManager, plugin: ThingResource) -> Process:
    with contextlib.suppress(ZeroDivisionError), manager.process("p") as process:
        plugin.give(process.pid)
        raise ZeroDivisionError
    return process


def by_interrupt(manager: ProcessManager, plugin: ThingResource) -> Process:
    with contextlib.suppress(KeyboardInterrupt), manager.process("p") as process:
        plugin.give(process.pid)
        raise KeyboardInterrupt
    return process


def by_kill(manager: ProcessManager, plugin: ThingResource) -> Process:
    with manager.process("p") as process:
        plugin.give(process.pid)
        manager.terminate_process(process.pid)
    return process


def by_close(manager: ProcessManager, plugin: ThingResource) -> Process:
    process = manager.create_process("p")
    plugin.give(process.pid)
    manager.close()
    return process


def by_its_parent(manager: ProcessManager, plugin: ThingResource) -> Process:
    with manager.process("parent") as parent:
        process = manager.create_process("p", parent=parent.pid)
        plugin.give(process.pid)
    return process


@pytest.mark.parametrize("end", [by_exception, by_interrupt, by_kill, by_close, by_its_parent])
def test_any_other_end_leaks_nothing(
    end: Callable[[ProcessManager, ThingResource], Process],
) -> None:
    """After an exception or a kill, things still owned are expected: freed, and not reproached."""
    plugin = ThingResource()
    with managed(plugin) as manager:
        process = end(manager, plugin)

    assert result_of(process).leaks == ()
    assert result_of(process).stats.resources_freed == 1


def test_what_is_adopted_by_nobody_else_counts_as_leaked() -> None:
    """Adopting is a promise to release; whoever forgets it leaks."""
    plugin = ThingResource()
    with managed(plugin) as manager, manager.process("p") as process:
        process.adopt(Thing("adopted"))

    assert [leak.resource.description for leak in result_of(process).leaks] == ["adopted"]


@pytest.mark.parametrize("how", ["add", "acquire", "adopt"])
def test_a_leak_tells_where_it_was_acquired(how: str) -> None:
    """With acquisition sites the stack at the acquisition, this very file and line, is kept."""
    plugin = InlineThingResource()
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrate(plugin))
    with builder.with_grace(0).with_acquisition_sites().build() as manager:
        with manager.process("p") as process:
            frame = inspect.currentframe()
            assert frame is not None
            line = frame.f_lineno + 1
            acquire(how, plugin, process)
        [leak] = result_of(process).leaks
        site = leak.resource.acquired_at or ""

        assert f'File "{__file__}", line {line}, in test_a_leak_tells' in site
        assert "ownership.py" not in site.splitlines()[-2]
        assert f"acquired at\n{site}" in str(leak)
        assert plugin.table._sites == {}


def acquire(how: str, plugin: ThingResource, process: Process) -> None:
    if how == "add":
        plugin.table.add(process.pid, Thing())
    elif how == "acquire":
        plugin.table.acquire(process.pid, Thing, Thing.release)
    else:
        process.adopt(Thing())


def test_no_site_is_kept_unless_asked_for() -> None:
    """Tracebacks cost; by default there are none."""
    plugin = ThingResource()
    with managed(plugin) as manager, manager.process("p") as process:
        plugin.give(process.pid)

    assert [leak.resource.acquired_at for leak in result_of(process).leaks] == [None]


def test_sites_go_with_the_resource() -> None:
    """By release, transfer and cleanup: none stays of what is gone, all of what is moved."""
    plugin = ThingResource()
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrate(plugin))
    with builder.with_grace(0).with_acquisition_sites().build() as manager:
        first, second = (manager.create_process(name) for name in "ab")
        released, moved = (plugin.table.add(first.pid, Thing()) for _ in range(2))
        plugin.table.release(first.pid, released)
        plugin.table.transfer(first.pid, moved, second.pid)
        first.terminate()
        [info] = second.usage()["things"].resources

        assert __file__ in (info.acquired_at or "")

        second.terminate()

        assert plugin.table._sites == {}


def test_leaks_and_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A warning each, on the logger `probate`, naming process, kind and resource."""
    plugin = ThingResource()
    with managed(plugin) as manager, manager.process("careless") as process:
        plugin.give(process.pid, "forgotten")
        plugin.give(process.pid, "broken", lambda: 1 / 0)
    texts = [r.getMessage() for r in caplog.records if r.name == "probate"]

    assert len(texts) == 3
    assert all(f"process {process.pid} 'careless'" in text for text in texts)
    assert any("leak" in text and "forgotten was never released" in text for text in texts)
    assert any("things: broken: failed: ZeroDivisionError" in text for text in texts)
