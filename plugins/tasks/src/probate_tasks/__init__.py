"""Probate's kind `tasks`.

resource.py     TaskResource: the hooks
manager.py      AsyncTaskManager: starts tasks and calls for processes, forgets what has ended
job.py          what the table keeps: asked to stop, reported, over
stoprequest.py  a request that jobs stop, and the future that tells when they have
looptask.py     asyncio tasks and futures, which only their own loop may touch
loopcontext.py  which event loop runs on this thread, and which of its tasks
call.py         calls in our threads, and futures of other executors
workers.py      the threads, for each process, none of them idle
adoption.py     what can be adopted, told by what it is or can do
timers.py       what is called later, by a thread of its own or an event loop
pools.py        executors, pools, and servers of multiprocessing
cancellation.py cancels, each on its own loop, having looked at what is awaited
following.py    what goes on behind a task or future when that is cancelled
work.py         that work: tasks, executors' calls, what a thread does for a future
watch.py        looks again and again at what nobody tells the end of
stacks.py       where a task or a thread stands
status.py       what has become of a task, a call, a future
"""

from __future__ import annotations

from probate_tasks.manager import AsyncTaskManager
from probate_tasks.resource import TaskResource
from probate_tasks.status import TaskStatus

__all__ = ["AsyncTaskManager", "TaskResource", "TaskStatus"]
