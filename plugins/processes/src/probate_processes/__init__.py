"""Probate's kind `processes`.

resource.py      ProcessTreeResource: the kind
manager.py       ProcessTreeManager: spawns, adopts, ends
observing.py     children of another OS process
launch.py        starting the leader of a tree, or undoing that
containment.py   moving a tree into its cgroup, after its start
birth.py         the fork of one leader, and what is done before anybody else can act
plain.py         programs for which subprocess has nothing to do but the fork
launcher.py      the parked threads that fork, and what of the calling thread they hand on
options.py       options of subprocess.Popen: passed on, or refused
native.py        the Python objects that stand for OS processes
tree.py          a tree: a leader and all that descends from it
treeregistry.py  all trees of this host, and one look at its orphans for all of them
membership.py    whose an orphan is, by what it shows
lineage.py       what a child of this host shows
marks.py         the marks of one tree: numbers, a word in the environment, a tag in a limit
threadmarks.py   numbers that a thread wears, and gives to all that it forks
stopping.py      asks a tree to stop, and tells when it has
killing.py       SIGKILL to the last descendant
remains.py       what a dead host has left of a tree, found and killed
sharedmemory.py  files in /dev/shm: who unlinks them, and which stay
cgroup.py        containment by cgroup v2
procfs.py        descent and children; processes pinned
limits.py        limits that the kernel enforces
accounting.py    what OS processes use, and notes for the account
errors.py        what goes wrong, and nowhere else
"""

from __future__ import annotations

from probate_processes.errors import ForeignProcError
from probate_processes.manager import ProcessTreeManager
from probate_processes.native import Child
from probate_processes.resource import ProcessTreeResource

__all__ = ["Child", "ForeignProcError", "ProcessTreeManager", "ProcessTreeResource"]
