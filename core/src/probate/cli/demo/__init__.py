"""`probate demo`: the main job, on real resources, with the kernel as witness.

run.py        the story: five processes come to their end in four ways
host.py       the host program: an orchestrator, a manager, an event loop in a thread
scenes.py     what a process of the demo does with each kind
workers.py    a tree of OS processes, killed from outside
aftermath.py  hosts of their own, killed with all that they hold
mortal.py     such a host
timing.py     how long each kind's cleanup takes, by pluggy's own monitoring
report.py     all that is told
printing.py   the report for people
"""

from __future__ import annotations

from probate.cli.demo.host import DemoError
from probate.cli.demo.printing import print_all, print_screen
from probate.cli.demo.run import run

__all__ = ["DemoError", "print_all", "print_screen", "run"]
