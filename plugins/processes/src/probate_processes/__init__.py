"""Probate's kind `processes`.

resource.py      ProcessTreeResource: the kind
manager.py       ProcessTreeManager: spawns, adopts, ends
launch.py        starting the leader of a tree, and containing it
native.py        the Python objects that stand for OS processes
tree.py          a tree: a leader and all that descends from it
treeregistry.py  all trees of this host, and whose its orphans are
stopping.py      asks a tree to stop, and tells when it has
killing.py       SIGKILL to the last descendant
cgroup.py        containment by cgroup v2
subreaper.py     orphans come to us
procfs.py        descent, children, marks; processes pinned
limits.py        limits that the kernel enforces
accounting.py    what OS processes use
"""

from __future__ import annotations

from probate_processes.manager import ProcessTreeManager
from probate_processes.native import Child
from probate_processes.resource import ProcessTreeResource

__all__ = ["Child", "ProcessTreeManager", "ProcessTreeResource"]
