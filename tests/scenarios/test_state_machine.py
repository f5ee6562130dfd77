"""All kinds under random use, against a plain model, with failures injected; the kernel counts."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import pytest
from all_drivers import all_drivers
from drivers import Driver, LoopThread
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from probate import (
    BusyResourceError,
    CleanupStats,
    Ordering,
    OwnershipTable,
    Process,
    ProcessManager,
    ProcessTerminatedError,
    ResourceOrchestrator,
    hookimpl,
)
from probate.testing.witness import KernelView

#: The names of all drivers; making them acquires nothing.
DRIVERS = list(all_drivers(ResourceOrchestrator().discover(), LoopThread()))


class Fault:
    """A resource whose release goes wrong as told: "fails", "busy" once, or "interrupts"."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.releases = 0


class FaultyResource:
    """A kind in the midst of the others, to see that its failures stay its own."""

    def __init__(self) -> None:
        self.table: OwnershipTable[Fault] = OwnershipTable("faulty")

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(25)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return pid in self.table

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return self.table.cleanup(pid, self._release)

    @staticmethod
    def _release(fault: Fault) -> None:
        fault.releases += 1
        if fault.how == "fails":
            raise RuntimeError("as told")
        if fault.how == "busy" and fault.releases == 1:
            raise BusyResourceError("as told")


class Estates(RuleBasedStateMachine):
    """The model: who owns which things, by kind."""

    processes = Bundle("processes")
    things = Bundle("things")

    def __init__(self) -> None:
        super().__init__()
        gc.collect()
        self.before = KernelView.take()
        self.loop = LoopThread().__enter__()
        self.orchestrator = ResourceOrchestrator().discover().register(FaultyResource(), "faulty")
        self.faulty: FaultyResource = self.orchestrator["faulty"]
        builder = ProcessManager.builder().with_resource_orchestrator(self.orchestrator)
        self.manager = builder.with_grace(5).build()
        self.drivers: dict[str, Driver] = all_drivers(self.orchestrator, self.loop)
        self.owned: dict[Process, dict[int, tuple[Driver, Any]]] = {}
        self.faults: dict[Process, list[Fault]] = {}
        self.children: dict[Process, list[Process]] = {}

    # -- rules ---------------------------------------------------------------

    @rule(target=processes)
    def create(self) -> Process:
        return self._created(None)

    @rule(target=processes, parent=processes)
    def create_child(self, parent: Process) -> Process:
        if parent not in self.owned:
            with pytest.raises(ProcessTerminatedError):
                self.manager.create_process("child", parent.pid)
            return parent
        return self._created(parent)

    @rule(target=things, process=processes, name=st.sampled_from(DRIVERS))
    def acquire(self, process: Process, name: str) -> tuple[Process, Any]:
        driver = self.drivers[name]
        if process not in self.owned:
            with pytest.raises(ProcessTerminatedError):
                driver.make(process.pid)
            return process, None
        native = driver.make(process.pid)
        self.owned[process][id(native)] = (driver, native)
        return process, native

    @rule(process=processes, how=st.sampled_from(["fails", "busy", "comes free"]))
    def acquire_faulty(self, process: Process, how: str) -> None:
        fault = Fault(how)
        if process in self.owned:
            self.faulty.table.add(process.pid, fault, nbytes=7)
            self.faults[process].append(fault)
        else:
            with pytest.raises(ProcessTerminatedError):
                self.faulty.table.add(process.pid, fault)

    @rule(thing=consumes(things))
    def give_back(self, thing: tuple[Process, Any]) -> None:
        process, native = thing
        driver = self._forgotten(process, native)
        if driver is not None:
            driver.give_back(process.pid, native)

    @rule(thing=consumes(things))
    def close_natively(self, thing: tuple[Process, Any]) -> None:
        process, native = thing
        entry = self.owned.get(process, {}).get(id(native))
        if entry is not None and entry[0].close is not None:
            entry[0].close(native)
            # Still in the books, but nobody's to free any more.
            self.owned[process][id(native)] = (Driver("gone", *[lambda *_: None] * 2), native)

    @rule(target=things, thing=consumes(things), to=processes)
    def transfer(self, thing: tuple[Process, Any], to: Process) -> tuple[Process, Any]:
        process, native = thing
        entry = self.owned.get(process, {}).get(id(native))
        if entry is None or entry[0].kind == "signals":
            # A handler may serve many: what is owned is its registration, which is no object.
            return thing
        if to not in self.owned:
            with pytest.raises(ProcessTerminatedError):
                process.transfer(native, to)
            return thing
        process.transfer(native, to)
        del self.owned[process][id(native)]
        self.owned[to][id(native)] = entry
        return to, native

    @rule(process=processes)
    def terminate(self, process: Process) -> None:
        was_running = process in self.owned
        expected = self._expected(process) if was_running else None
        ended = self._subtree(process)
        result = process.terminate()

        assert process.terminate() is result
        if expected is not None:
            freed, failed = expected
            assert dict(result.stats.by_type) == freed, str(result.errors)
            assert [error.kind for error in result.errors] == ["faulty"] * failed
            assert result.stats.errors_encountered == failed
        for each in ended:
            for fault in self.faults.pop(each, []):
                assert fault.releases == (2 if fault.how == "busy" else 1)
            self.owned.pop(each, None)
            assert not self.orchestrator.has_resources(each.pid)

    # -- what always holds ---------------------------------------------------

    @invariant()
    def the_books_agree_with_the_model(self) -> None:
        for process, things in self.owned.items():
            usage = self.orchestrator.usage(process.pid)
            counts = {kind: each.count for kind, each in usage.items()}
            model = Counter(driver.kind for driver, _ in things.values())
            gone = model.pop("gone", 0)
            if self.faults[process]:
                model["faulty"] = len(self.faults[process])

            assert sum(counts.values()) == model.total() + gone
            assert all(counts.get(kind, 0) >= count for kind, count in model.items())

    def teardown(self) -> None:
        self.manager.close()
        self.loop.__exit__(None, None, None)
        del self.drivers, self.owned
        gc.collect()

        assert self.before.changes() == []

    # -- inside --------------------------------------------------------------

    def _created(self, parent: Process | None) -> Process:
        process = self.manager.create_process("any", parent.pid if parent else None)
        self.owned[process] = {}
        self.faults[process] = []
        self.children[process] = []
        if parent is not None:
            self.children[parent].append(process)
        return process

    def _forgotten(self, process: Process, native: Any) -> Driver | None:
        entry = self.owned.get(process, {}).pop(id(native), None)
        if entry is None or entry[0].kind == "gone":
            if entry is not None:
                self.owned[process][id(native)] = entry
            return None
        return entry[0]

    def _expected(self, process: Process) -> tuple[dict[str, int], int]:
        freed = Counter(driver.kind for driver, _ in self.owned[process].values())
        del freed["gone"]
        faults = self.faults[process]
        failed = sum(fault.how == "fails" for fault in faults)
        if len(faults) > failed:
            freed["faulty"] = len(faults) - failed
        return dict(freed), failed

    def _subtree(self, process: Process) -> list[Process]:
        found = [process]
        for child in self.children[process]:
            found += self._subtree(child)
        return found


Estates.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


TestEstates = pytest.mark.timeout(240)(Estates.TestCase)
