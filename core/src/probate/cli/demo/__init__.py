"""`probate demo`: the main job, on real resources, with the kernel as witness.

host.py       the host program: an orchestrator, a manager, an event loop in a thread
scenes.py     what a process of the demo does with each kind
workers.py    a tree of OS processes, killed from outside
timing.py     how long each kind's cleanup takes, by pluggy's own monitoring
report.py     the tables
run.py        the story
"""

from __future__ import annotations

from probate.cli.demo.run import run

__all__ = ["run"]
