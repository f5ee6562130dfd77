"""A pid is an int, and nothing that looks or hashes like one: a TypeError wherever one is taken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
from plugins_things import Thing, ThingResource, managed

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ProcessManager

#: True and 1.0 hash as 1 does, the pid of the first process.
NO_PIDS: Final = {
    "True": True,
    "1": "1",
    "None": None,
    "1.0": 1.0,
    "object": object(),
    "np.True_": np.True_,
    "list": [1],
}

WAYS: Final[dict[str, Callable[[ProcessManager, Any], object]]] = {
    "get": lambda manager, pid: manager.get(pid),
    "wait": lambda manager, pid: manager.wait(pid, 0),
    "wait_async": lambda manager, pid: asyncio.run(manager.wait_async(pid)),
    "terminate": lambda manager, pid: manager.terminate_process(pid),
    "terminate_async": lambda manager, pid: asyncio.run(manager.terminate_process_async(pid)),
    "create": lambda manager, pid: manager.create_process("child", parent=pid or False),
    "process": lambda manager, pid: manager.process("child", parent=pid or False).__enter__(),
    "has_resources": lambda manager, pid: manager.orchestrator.has_resources(pid),
    "usage": lambda manager, pid: manager.orchestrator.usage(pid),
    "adopt": lambda manager, pid: manager.orchestrator.adopt(pid, Thing()),
    "give_back": lambda manager, pid: manager.orchestrator.give_back(pid, 1),
    "give_back_async": lambda manager, pid: asyncio.run(
        manager.orchestrator.give_back_async(pid, 1)
    ),
    "disown": lambda manager, pid: manager.orchestrator.disown(pid, 1),
    "transfer": lambda manager, pid: manager.orchestrator.transfer(pid, Thing(), 1),
    "transfer to": lambda manager, pid: manager.orchestrator.transfer(1, Thing(), pid),
    "cleanup": lambda manager, pid: manager.orchestrator.cleanup_process(pid),
    "cleanup_async": lambda manager, pid: asyncio.run(
        manager.orchestrator.cleanup_process_async(pid)
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", NO_PIDS)
def test_what_is_no_int_is_no_pid(way: str, what: str) -> None:
    """The error names the value; process 1, whose pid True hashes as, keeps all it has."""
    plugin = ThingResource()
    with managed(plugin) as manager:
        first = manager.create_process("first")
        thing = plugin.give(first.pid)
        with pytest.raises(TypeError, match="a pid must be an int, got ") as caught:
            WAYS[way](manager, NO_PIDS[what])

        assert repr(NO_PIDS[what] or False) in str(caught.value) or what == "None"
        assert [info.name for info in manager.list_processes()] == ["first"]
        assert plugin.table.resources(first.pid) == [thing]
        assert thing.releases == 0


def test_an_int_of_another_library_is_a_pid() -> None:
    """What arrays hand out, for one: it finds the process, and what it adopts is the process's."""
    plugin = ThingResource()
    with managed(plugin) as manager:
        first = manager.create_process("first")
        pid: Any = np.int64(first.pid)
        manager.orchestrator.adopt(pid, Thing())

        assert manager.get(pid) is first
        assert [type(each) for each in plugin.table.pids()] == [int]
        assert manager.terminate_process(pid).stats.resources_freed == 1
