"""Processes: owners of resources, their tree, and their termination.

process.py    Process: one owner
context.py    the current process, for those who need not know what a process is
current.py    the current process of a context, and the scope in which it is current
leftout.py    methods whose pid may be left out, for the current process
errors.py     what a manager raises that is closed, or whose lease is over
manager.py    ProcessManager: issues pids, knows the tree, is closed
builder.py    ProcessManagerBuilder: the manager's options
terminator.py  Terminator: terminates a tree of processes, on a thread or on an event loop
hostsignals.py  closes a manager at signals that end its host, which ends then as it would have
hostexit.py   closes what nobody has closed when the interpreter exits
order.py      terminates several in order; knows what is being terminated around here
lease.py      ends all unless the host is told in time to go on
grace.py      the wait for users to stop, for one manager
pending.py    the account of one, for those who wait for it
history.py    the latest terminated processes, and the sum of all accounts
spawning.py   spawns OS processes, and has them terminated when they exit
terminationthread.py  the thread on which that is done
status.py     what a running host reports, and to whom
hosts.py      asks all running hosts for their reports: `probate ps`
argv.py       argument vectors, checked
scheduling.py how processor time is shared out

Each public name is loaded when it is first used: whoever asks for the current process, as every
plugin does, needs no manager for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from probate.system.lazy import lazy_names

if TYPE_CHECKING:
    from probate.process.argv import Argument as Argument
    from probate.process.argv import checked_argv as checked_argv
    from probate.process.builder import ProcessManagerBuilder as ProcessManagerBuilder
    from probate.process.current import ProcessScope as ProcessScope
    from probate.process.current import current_process as current_process
    from probate.process.errors import LeaseExpiredError as LeaseExpiredError
    from probate.process.errors import ManagerClosedError as ManagerClosedError
    from probate.process.leftout import pid_or_current as pid_or_current
    from probate.process.manager import ProcessManager as ProcessManager
    from probate.process.process import Pid as Pid
    from probate.process.process import Process as Process
    from probate.process.scheduling import MAX_QUANTUM as MAX_QUANTUM
    from probate.process.scheduling import MIN_QUANTUM as MIN_QUANTUM
    from probate.process.scheduling import SchedulingPolicy as SchedulingPolicy
    from probate.process.spawning import PopenOptions as PopenOptions
    from probate.run.observing import Observation as Observation

#: Where each public name lives; the block above says the same to checkers.
_HOMES: Final = {
    "Argument": "probate.process.argv",
    "LeaseExpiredError": "probate.process.errors",
    "MAX_QUANTUM": "probate.process.scheduling",
    "MIN_QUANTUM": "probate.process.scheduling",
    "ManagerClosedError": "probate.process.errors",
    "Observation": "probate.run.observing",
    "Pid": "probate.process.process",
    "PopenOptions": "probate.process.spawning",
    "Process": "probate.process.process",
    "ProcessManager": "probate.process.manager",
    "ProcessManagerBuilder": "probate.process.builder",
    "ProcessScope": "probate.process.current",
    "SchedulingPolicy": "probate.process.scheduling",
    "checked_argv": "probate.process.argv",
    "current_process": "probate.process.current",
    "pid_or_current": "probate.process.leftout",
}
__all__ = list(_HOMES)

if not TYPE_CHECKING:
    # Unseen by checkers, to whom a misspelt name is an error.
    __getattr__ = lazy_names(__name__, _HOMES)
