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
terminationthread.py settles processes that died unasked
status.py     what a running host tells whoever may ask: `probate ps`
reporting.py  the report that it gives
argv.py       argument vectors, checked
scheduling.py how processor time is shared out

Each public name is loaded when it is first used: whoever wants to know the current process, as
every plugin does, needs no manager for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from probate.system.lazy import lazy_names

if TYPE_CHECKING:
    from probate.process.argv import Argument as Argument
    from probate.process.argv import checked_argv as checked_argv
    from probate.process.builder import ProcessManagerBuilder as ProcessManagerBuilder
    from probate.process.current import current_process as current_process
    from probate.process.current import pid_or_current as pid_or_current
    from probate.process.manager import ProcessManager as ProcessManager
    from probate.process.process import Pid as Pid
    from probate.process.process import Process as Process
    from probate.process.scheduling import MAX_QUANTUM as MAX_QUANTUM
    from probate.process.scheduling import MIN_QUANTUM as MIN_QUANTUM
    from probate.process.scheduling import SchedulingPolicy as SchedulingPolicy
    from probate.process.scope import ProcessScope as ProcessScope

#: Where each public name lives; the block above says the same to checkers.
_HOMES: Final = {
    "Argument": "probate.process.argv",
    "MAX_QUANTUM": "probate.process.scheduling",
    "MIN_QUANTUM": "probate.process.scheduling",
    "Pid": "probate.process.process",
    "Process": "probate.process.process",
    "ProcessManager": "probate.process.manager",
    "ProcessManagerBuilder": "probate.process.builder",
    "ProcessScope": "probate.process.scope",
    "SchedulingPolicy": "probate.process.scheduling",
    "checked_argv": "probate.process.argv",
    "current_process": "probate.process.current",
    "pid_or_current": "probate.process.current",
}
__all__ = list(_HOMES)

if not TYPE_CHECKING:
    # Unseen by checkers, to whom a misspelt name is an error.
    __getattr__ = lazy_names(__name__, _HOMES)
