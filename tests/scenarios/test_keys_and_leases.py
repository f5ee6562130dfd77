"""Keys by which others know processes; working in the name of one; leases; totals."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from probate import (
    CleanupResult,
    Outcome,
    OwnershipTable,
    ProcessManager,
    ProcessNotFoundError,
    ResourceKind,
    ResourceOrchestrator,
    current_process,
)
from probate.errors import NoCurrentProcessError, UnsettledResourceError
from probate.models import Ordering, ProcessState
from probate.process import LeaseExpiredError, ManagerClosedError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_process_is_found_by_its_key_until_it_has_ended(manager: ProcessManager) -> None:
    """A key is free again when whoever had it is TERMINATED."""
    process = manager.create_process("job", key="job-7")
    assert (process.key, manager.by_key("job-7")) == ("job-7", process)
    assert manager.by_key("job-8") is None

    with pytest.raises(ValueError, match=r"key 'job-7' is that of <Process 1 'job' running>"):
        manager.create_process("other", key="job-7")
    assert len(manager.list_processes()) == 1

    process.terminate()
    assert manager.by_key("job-7") is None
    with manager.process("again", key="job-7") as again:
        assert manager.by_key("job-7") is again
    spawned = manager.spawn(["true"], key="job-7")
    assert spawned.key == "job-7"


def test_a_key_is_a_string(manager: ProcessManager) -> None:
    with pytest.raises(TypeError, match="key must be a string, got 7"):
        manager.create_process("job", key=7)  # type: ignore[arg-type]  # what is refused
    assert manager.list_processes() == []


def test_a_key_that_cannot_be_noted_leaves_no_process(
    orchestrator: ResourceOrchestrator, tmp_path: object
) -> None:
    """The journal's folder cannot be made: there is no process whose end nobody would know."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
    with builder.with_journal("/proc/nowhere").build() as manager:
        with pytest.raises(RuntimeError, match="no folder for the journal"):
            manager.create_process("job", key="job-7")

        assert (manager.list_processes(), manager.by_key("job-7")) == ([], None)
        with pytest.raises(ProcessNotFoundError):
            manager.get(1)


def test_one_works_for_a_process_that_exists_on_any_thread(manager: ProcessManager) -> None:
    """What is acquired without a pid is its own; leaving the block ends nothing, and nests."""
    process, other = manager.create_process("one"), manager.create_process("other")

    def work() -> None:
        with process.current() as found:
            assert (found, current_process()) == (process, process)
            with other.current():
                assert current_process() is other
            manager.orchestrator["memory"].manager.allocate(16)
        with pytest.raises(NoCurrentProcessError):
            current_process()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert process.state is ProcessState.RUNNING
    assert process.usage()["memory"].nbytes == 16


def test_the_total_of_an_account_has_those_that_ended_with_it(manager: ProcessManager) -> None:
    """All the way down; not those that had ended before, whose accounts have been handed out."""
    memory = manager.orchestrator["memory"].manager
    top = manager.create_process("top")
    middle = manager.create_process("middle", top)
    bottom = manager.create_process("bottom", middle)
    for process, size in ((top, 1), (middle, 10), (bottom, 100)):
        memory.allocate(process.pid, size)
    before = manager.create_process("before", middle)
    memory.allocate(before.pid, 1000)
    before.terminate()

    result = top.terminate()

    assert (result.stats.bytes_freed, result.total.bytes_freed) == (1, 111)
    assert result.total.by_type == {"memory": 3}
    assert middle.result is not None
    assert middle.result.total.bytes_freed == 110
    assert bottom.result is not None
    assert bottom.result.total == bottom.result.stats
    assert manager.totals.bytes_freed == 1111
    assert CleanupResult.model_validate_json(result.model_dump_json()) == result


def test_what_somebody_else_is_to_end_is_unsettled_and_no_success() -> None:
    """Nobody knows yet: it is said who ends it, and by when, and it is not tried again."""
    tries = []

    def hand_over(job: str) -> Outcome:
        tries.append(job)
        if job == "8":
            raise UnsettledResourceError("node 3 ends it within 30 s, by its lease")
        return Outcome.UNSETTLED

    table: OwnershipTable[str] = OwnershipTable("jobs", hand_over)
    orchestrator = ResourceOrchestrator().register(ResourceKind(table, Ordering(1)), "jobs")
    with ProcessManager.builder().with_resource_orchestrator(orchestrator).build() as manager:
        process = manager.create_process("job")
        table.add(process.pid, "7")
        table.add(process.pid, "8")

        result = process.terminate()

    assert tries == ["8", "7"]
    assert not result.is_success
    assert [str(error) for error in result.errors] == [
        "jobs: '8': unsettled: node 3 ends it within 30 s, by its lease",
        "jobs: '7': unsettled: nobody knows yet: somebody else is to end it",
    ]
    assert result.stats.resources_freed == 0


@pytest.fixture
def leased(orchestrator: ResourceOrchestrator) -> Callable[[float], ProcessManager]:
    """Builds managers with a lease of so many seconds."""
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0)
    return lambda seconds: builder.with_lease(seconds).build()


def test_a_lease_that_is_not_renewed_ends_all(leased: Callable[[float], ProcessManager]) -> None:
    """Without anybody calling; who renews too late is told so, and no more is created."""
    with leased(0.05) as manager:
        process = manager.create_process("job")
        manager.orchestrator["memory"].manager.allocate(process.pid, 16)

        assert manager.wait(process, 30).stats.bytes_freed == 16
        with pytest.raises(LeaseExpiredError, match=r"lease of 0\.05 s was not renewed"):
            manager.renew()
        with pytest.raises(ManagerClosedError, match="closed"):
            manager.create_process("late")


def test_a_lease_that_is_renewed_goes_on(leased: Callable[[float], ProcessManager]) -> None:
    """Past the moments at which it would have ended, and it keeps nobody from closing."""
    with leased(0.3) as manager:
        process = manager.create_process("job")
        for _ in range(10):
            with pytest.raises(TimeoutError):
                manager.wait(process, 0.05)
            manager.renew()
        assert process.state is ProcessState.RUNNING

    with pytest.raises(ManagerClosedError, match="there is nothing to renew"):
        manager.renew()


def test_a_forked_child_has_no_lease(leased: Callable[[float], ProcessManager]) -> None:
    """It is the parent's, and the parent's goes on."""
    with leased(60) as manager:
        child = os.fork()
        if child == 0:
            try:
                manager.renew()
            except LeaseExpiredError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        manager.renew()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1"])
def test_a_lease_is_a_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="lease"):
        ProcessManager.builder().with_lease(seconds)


def test_there_is_nothing_to_renew_without_a_lease(manager: ProcessManager) -> None:
    with pytest.raises(RuntimeError, match="with_lease"):
        manager.renew()
