"""Processes: owners of resources, their tree, and their end.

process.py    Process: one owner
current.py    the current process of a context
manager.py    ProcessManager: issues pids, terminates, accounts
builder.py    ProcessManagerBuilder: the manager's options
scope.py      `with manager.process(...)`
order.py      what is being ended around here
pending.py    the account of one, for whoever waits for it
history.py    what is kept of the dead
child.py      what a process knows of the OS process behind it
spawning.py   spawns OS processes, and has them settled when they die
terminationthread.py  settles processes that died unasked
status.py     what a running host tells whoever may ask: `probate ps`
reporting.py  the report that it gives
argv.py       argument vectors, checked
scheduling.py how processor time is shared out

As at the root, each public name is loaded when it is first used: whoever wants to know the current
process, as every plugin does, needs no manager for that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from probate.process.builder import ProcessManagerBuilder
    from probate.process.current import current_process, pid_or_current
    from probate.process.manager import ProcessManager
    from probate.process.process import Pid, Process
    from probate.process.scope import ProcessScope

__all__ = [
    "Pid",
    "Process",
    "ProcessManager",
    "ProcessManagerBuilder",
    "ProcessScope",
    "current_process",
    "pid_or_current",
]

#: Where each name lives; the TYPE_CHECKING block above says the same to checkers.
_HOMES: Final = {
    "Pid": "process",
    "Process": "process",
    "ProcessManager": "manager",
    "ProcessManagerBuilder": "builder",
    "ProcessScope": "scope",
    "current_process": "current",
    "pid_or_current": "current",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
