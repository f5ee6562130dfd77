"""Probate's kind `scheduler`.

resource.py    SchedulerResource: the hooks
manager.py     SchedulerManager: puts OS processes on the run queue, for processes
arguments.py   what a caller may ask for, checked before anything is acquired
errors.py      what goes wrong
figures.py     statistics
entry.py       one OS process on the queue: stopped, continued, accounted for
dispatcher.py  who runs next, by a policy: slices begun and ended
runqueue.py    the queue, and the thread that hands out its time slices
signalling.py  SIGSTOP and SIGCONT by pidfd, to a process or its group
tuning.py      niceness and CPU affinity, changed and put back
"""

from __future__ import annotations

from probate_scheduler.entry import RunQueueEntry
from probate_scheduler.errors import ReaperUnavailableError
from probate_scheduler.figures import EntryState, EntryStatistics, SchedulerStatistics
from probate_scheduler.manager import SchedulerManager
from probate_scheduler.resource import SchedulerResource

__all__ = [
    "EntryState",
    "EntryStatistics",
    "ReaperUnavailableError",
    "RunQueueEntry",
    "SchedulerManager",
    "SchedulerResource",
    "SchedulerStatistics",
]
