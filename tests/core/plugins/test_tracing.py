"""The trace: which hook of which kind, for whom, what came of it, when and where."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from core_scripts import in_forked_child, run_script
from plugins_things import FORMS, InlineThingResource, ThingResource, managed, orchestrate, raising

from probate import ProcessManager, ResourceOrchestrator, hookimpl
from probate.orchestrator import registry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

LINE = re.compile(
    r"probate (?P<os_pid>\d+) (?P<thread>[^:]+): (?P<indent>(?:  )*)(?P<what>\S.*?)"
    r"(?: (?P<answer>(?:->|raised) .*) in \d+\.\d{3} ms)?"
)


class Line(NamedTuple):
    thread: str
    depth: int
    what: str
    #: Empty where a call begins.
    answer: str
    os_pid: int


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Line]]:
    """Has hook calls written to a file, from here on, and reads it."""
    monkeypatch.setenv("PROBATE_TRACE", str(path := tmp_path / "trace"))

    def read() -> list[Line]:
        lines = []
        for text in path.read_text().splitlines():
            found = LINE.fullmatch(text)
            assert found is not None, text
            lines.append(
                Line(
                    found["thread"],
                    len(found["indent"]) // 2,
                    found["what"],
                    found["answer"] or "",
                    int(found["os_pid"]),
                )
            )
        return lines

    return read


def as_tree(lines: list[Line]) -> list[str]:
    """What is called, and what comes of it, with its indentation."""
    return [f"{'  ' * each.depth}{each.what} {each.answer}".rstrip() for each in lines]


@pytest.mark.parametrize("form", FORMS)
def test_a_termination_has_its_calls_below_it(
    form: type[ThingResource], written: Callable[[], list[Line]]
) -> None:
    """In their order, whichever thread each is made on; with what each returned."""
    plugins = [form(kind, place) for place, kind in enumerate("ab")]
    orchestrator = orchestrate(*plugins)
    for each in plugins:
        each.give(7, nbytes=10)
    orchestrator.cleanup_process(7, grace=0)

    assert as_tree(written()) == [
        "terminate pid=7",
        "  has_resources (2 kinds) pid=7",
        "  has_resources (2 kinds) pid=7 -> b, a",
        "  quiesce b pid=7",
        "  quiesce b pid=7 -> nothing",
        "  quiesce a pid=7",
        "  quiesce a pid=7 -> nothing",
        "  cleanup b pid=7",
        "  cleanup b pid=7 -> 1 freed, 10 bytes, 0 errors",
        "  cleanup a pid=7",
        "  cleanup a pid=7 -> 1 freed, 10 bytes, 0 errors",
        "  has_resources (2 kinds) pid=7",
        "  has_resources (2 kinds) pid=7 -> nothing",
        "terminate pid=7 -> 2 freed, 20 bytes, 0 errors",
    ]
    assert {each.os_pid for each in written()} == {os.getpid()}


def test_what_a_hook_raises_is_written_and_so_is_its_retry(
    written: Callable[[], list[Line]],
) -> None:
    """Although that is made without observers, one of whom may have been at fault."""
    plugin = ThingResource()
    plugin.give(7)

    def fail_once() -> Any:
        plugin.faults.clear()
        raise OSError("no luck\n\x1b[2J")

    plugin.faults["cleanup"] = fail_once
    other = ThingResource("other", 5)
    other.give(7)
    orchestrate(plugin, other).cleanup_process(7, grace=0)
    cleanups = [each.answer for each in written() if each.what.startswith("cleanup things")]

    assert cleanups == [
        "",
        r"raised OSError: no luck\n\x1b[2J",
        "",
        "-> 1 freed, 0 bytes, 0 errors",
    ]


def test_who_cannot_say_what_it_has_is_named(written: Callable[[], list[Line]]) -> None:
    """All kinds are asked in one call; if that raises, one by one."""
    plugins = [ThingResource("a"), ThingResource("b")]
    plugins[0].faults["has_resources"] = raising(ZeroDivisionError())
    orchestrate(*plugins).has_resources(7)

    assert as_tree(written()) == [
        "has_resources (2 kinds) pid=7",
        "has_resources (2 kinds) pid=7 raised ZeroDivisionError",
        "has_resources b pid=7",
        "has_resources b pid=7 -> False",
        "has_resources a pid=7",
        "has_resources a pid=7 raised ZeroDivisionError",
    ]


def test_a_hook_that_hangs_has_a_first_line_and_no_second_one(
    written: Callable[[], list[Line]],
) -> None:
    """The line is out before the call is made; the termination says what became of it."""
    seen: list[list[Line]] = []
    goes_on = threading.Event()
    plugin = ThingResource()
    plugin.give(7)

    def hang() -> Any:
        seen.append(written())
        goes_on.wait(60)

    plugin.faults["cleanup"] = hang
    orchestrate(plugin).cleanup_process(7, grace=0, deadline=0.1)
    lines = written()
    goes_on.set()

    assert seen[0][-1].what == "cleanup things pid=7"
    assert [each.answer for each in lines if each.what.startswith("cleanup")] == [""]
    assert lines[-1].what == "terminate pid=7"
    assert "did not return in time" in lines[-1].answer


def test_what_a_hook_ends_stands_below_it(written: Callable[[], list[Line]]) -> None:
    """Also on the thread that hooks have to themselves."""
    plugin = ThingResource()
    manager = managed(plugin)
    owner, other = manager.create_process("owner"), manager.create_process("other")

    def end_other() -> None:
        manager.terminate_process(other.pid)

    plugin.give(other.pid)
    plugin.give(owner.pid, behave=end_other)
    manager.terminate_process(owner.pid)
    depths = [
        (each.what, each.depth)
        for each in written()
        if not each.answer and each.what.startswith(("terminate", "cleanup"))
    ]
    manager.close()

    assert depths == [
        (f"terminate pid={owner.pid}", 0),
        (f"cleanup things pid={owner.pid}", 1),
        (f"terminate pid={other.pid}", 2),
        (f"cleanup things pid={other.pid}", 3),
    ]


def check_each_is_whole(lines: list[Line], pids: Sequence[int]) -> None:
    """The lines of each process are those of one termination, although others are between."""
    for pid in pids:
        own = [each for each in lines if each.what.endswith(f"pid={pid}")]
        begun = [each.what for each in own if not each.answer]

        assert sorted(begun) == sorted(each.what for each in own if each.answer)
        assert begun.count(f"cleanup things pid={pid}") == 1
        first, *within, last = own[own.index(next(e for e in own if "terminate" in e.what)) :]
        assert (first.what, first.depth) == (last.what, last.depth) == (f"terminate pid={pid}", 0)
        assert {each.depth for each in within} == {1}


@pytest.mark.parametrize("form", FORMS)
def test_threads_write_whole_lines(
    form: type[ThingResource], written: Callable[[], list[Line]]
) -> None:
    """Each names its thread; none is in another."""
    plugin = form()
    manager = managed(plugin)
    pids = [manager.create_process(f"{number}").pid for number in range(16)]
    together = threading.Barrier(len(pids))

    def end(pid: int) -> None:
        plugin.give(pid)
        together.wait(30)
        manager.terminate_process(pid)

    threads = [threading.Thread(target=end, args=(pid,), name=f"ender-{pid}") for pid in pids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manager.close()
    lines = written()

    check_each_is_whole(lines, pids)
    for pid in pids:
        on = {each.thread for each in lines if each.what == f"terminate pid={pid}"}
        assert on == {f"ender-{pid}"}


@pytest.mark.parametrize("form", FORMS)
def test_terminations_on_one_event_loop_are_told_apart(
    form: type[ThingResource], written: Callable[[], list[Line]]
) -> None:
    """Each has its own indentation, whoever gets the loop meanwhile."""
    plugin = form()
    manager = managed(plugin)
    pids = [manager.create_process(f"{number}").pid for number in range(8)]
    for pid in pids:
        plugin.give(pid)

    async def end_all() -> None:
        await asyncio.gather(*map(manager.terminate_process_async, pids))

    asyncio.run(end_all())
    manager.close()

    check_each_is_whole(written(), pids)


def test_a_forked_child_writes_its_own_number(written: Callable[[], list[Line]]) -> None:
    """Into the same file."""
    orchestrator = orchestrate(ThingResource())
    answer = in_forked_child(lambda: (os.getpid(), orchestrator.has_resources(1)))
    os_pid = int(answer.strip("()").split(",")[0])

    assert {each.os_pid for each in written()} == {os_pid}


def test_what_is_adopted_and_reclaimed_is_named(written: Callable[[], list[Line]]) -> None:
    """By its type; nobody's repr is asked for. Kinds without the hook are not there."""
    orchestrator = orchestrate(ThingResource())
    with pytest.raises(TypeError):
        orchestrator.adopt(7, object())

    assert as_tree(written()) == [
        "adopt things pid=7 object",
        "adopt things pid=7 object -> None",
    ]


def test_a_long_answer_is_cut(written: Callable[[], list[Line]]) -> None:
    """So that a line is one write that mixes with no other's."""
    plugin = ThingResource()
    plugin.faults["cleanup"] = raising(ValueError("x" * 5000))
    plugin.give(7)
    orchestrate(plugin).cleanup_process(7, grace=0)

    assert max(len(each.answer) for each in written()) < 400


SCRIPT = """
import os, sys
from probate import Ordering, OwnershipTable, ResourceKind, ResourceOrchestrator
from probate.orchestrator import registry_of
orchestrator = ResourceOrchestrator()
table = OwnershipTable("things", lambda thing: None)
orchestrator.register(ResourceKind(table, Ordering(1)))
table.add(1, object())
orchestrator.cleanup_process(1)
print(registry_of(orchestrator).is_watched(), "probate.plugins.tracing" in sys.modules)
"""


@pytest.mark.parametrize(
    ("said", "printed", "is_traced"),
    [
        (None, "False False", False),
        ("", "False False", False),
        ("off", "False True", False),
        ("1", "True True", True),
    ],
)
def test_a_program_is_traced_to_standard_error_if_it_is_told_to(
    said: str | None, printed: str, is_traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody monitors pluggy, and the module is not even imported."""
    monkeypatch.delenv("PROBATE_TRACE", raising=False)
    if said is not None:
        monkeypatch.setenv("PROBATE_TRACE", said)
    ran = run_script(SCRIPT)

    assert ran.stdout == f"{printed}\n"
    assert [bool(LINE.fullmatch(line)) for line in ran.stderr.splitlines()[:1]] == [
        True
    ] * is_traced


def test_whoever_has_the_number_of_standard_error_gets_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there was none from the start, the next file that is opened has it."""
    monkeypatch.setenv("PROBATE_TRACE", "1")
    program = f"import os; os.open('mine', os.O_CREAT | os.O_WRONLY); {SCRIPT}"
    shell = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", program]
    ran = subprocess.run(
        shell, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )

    assert (ran.returncode, ran.stdout) == (0, "False True\n")
    assert (tmp_path / "mine").read_bytes() == b""


def test_an_observer_is_no_kind(written: Callable[[], list[Line]]) -> None:
    """It takes part in the call, and has no answer of its own."""

    class Observer:
        @hookimpl(wrapper=True)
        def has_resources(self, pid: int) -> Generator[None, Any, Any]:
            return (yield)

    orchestrator = orchestrate(plugin := ThingResource("a"), ThingResource("b"))
    orchestrator.register(Observer())
    plugin.give(7)
    orchestrator.has_resources(7)

    assert as_tree(written())[-1] == "has_resources (2 kinds) pid=7 -> a"


def test_without_standard_error_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has closed it gets no trace, and all else."""
    monkeypatch.setenv("PROBATE_TRACE", "1")
    ran = run_script(f"import os\nos.close(2)\n{SCRIPT}")

    assert (ran.returncode, ran.stdout) == (0, "True True\n")


def test_a_file_that_cannot_be_written_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """It keeps no program from running."""
    monkeypatch.setenv("PROBATE_TRACE", str(tmp_path / "no" / "trace"))
    orchestrator = ResourceOrchestrator()

    assert not registry_of(orchestrator).is_watched()
    [record] = caplog.records
    assert "hook calls are not traced: [Errno 2]" in record.getMessage()


def test_a_settings_file_has_a_manager_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is built with settings, and no other."""
    from probate.settings import Settings

    monkeypatch.delenv("PROBATE_TRACE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probate.toml").write_text("trace = 'calls'\n")
    orchestrators = [orchestrate(InlineThingResource()) for _ in range(2)]
    builders = [ProcessManager.builder().with_resource_orchestrator(each) for each in orchestrators]
    builders[0].with_settings(Settings())
    for builder in builders:
        with builder.build() as manager:
            manager.create_process("job")

    assert "has_resources" in (tmp_path / "calls").read_text()
    assert [registry_of(each).is_watched() for each in orchestrators] == [True, False]
