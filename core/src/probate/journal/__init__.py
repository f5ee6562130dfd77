"""The journal: what this host has made by name, noted so that it outlives the host.

named.py       Named: what a plugin says of a thing that outlives its maker by its name
host.py        HostJournal: what this OS process has made by name, noted before it is made
owners.py      OwnersJournal: the part of it that is one manager's, and its processes
store.py       Store: numbered rows that outlive whoever writes them
ahead.py       the logs ahead of a store, which are appended to in next to no time
loggedstore.py  LoggedStore: a store that is written to by its logs
folders.py     where stores are kept
header.py      what a store says of its host, and whether that is dead
handles.py     names of files and OS processes that no later one gets again
arming.py      Reaper: a small process that outlives this host
hostreaper.py  the one of this host, lent to all that need one
programs.py    the programs that settle what dead hosts have left
reaper.py      that process: stdlib only, it becomes the program that settles
pinned.py      removing what a dead owner has left by name, and nothing else
pinnedfolders.py  the folders that it is removed from, each looked at once
quarantine.py  where it is moved, out of everybody's reach, for that
mounts.py      which file system it is on, and whether that is there still
users.py       who still uses it
bound.py       which live sockets are bound to which paths
notice.py      Notice: what the kernel says of a program that is about to make something by name
made.py        what was about to be made, and what is there now
policy.py      what may be given back on which evidence
sysv.py        finding System V queues, semaphores and segments again, and removing them

Public: plugins import these names from here. Each is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from probate.system.lazy import by_name, lazy_names

if TYPE_CHECKING:
    from probate.journal.arming import Reaper as Reaper
    from probate.journal.handles import boot_id as boot_id
    from probate.journal.handles import file_handle as file_handle
    from probate.journal.handles import ipc_namespace as ipc_namespace
    from probate.journal.handles import open_process as open_process
    from probate.journal.handles import pid_namespace as pid_namespace
    from probate.journal.handles import process_handle as process_handle
    from probate.journal.handles import queue_handle as queue_handle
    from probate.journal.header import is_process_dead as is_process_dead
    from probate.journal.hostreaper import ReaperLoan as ReaperLoan
    from probate.journal.hostreaper import host_reaper as host_reaper
    from probate.journal.named import NEW as NEW
    from probate.journal.named import Named as Named
    from probate.journal.named import new_file as new_file
    from probate.journal.named import random_path as random_path
    from probate.journal.notice import Notice as Notice
    from probate.journal.pinned import known_identity as known_identity
    from probate.journal.pinned import name_asked_for as name_asked_for
    from probate.journal.pinned import path_identity as path_identity
    from probate.journal.pinned import reclaim_path as reclaim_path
    from probate.journal.sysv import SysvIdentity as SysvIdentity
    from probate.journal.sysv import SysvSort as SysvSort
    from probate.journal.sysv import may_be_there as may_be_there
    from probate.journal.sysv import reclaim_sysv as reclaim_sysv
    from probate.journal.sysv import sysv_named as sysv_named
    from probate.journal.sysv import sysv_status as sysv_status
    from probate.journal.sysv import with_sysv_key as with_sysv_key
    from probate.journal.users import users_of_file as users_of_file
    from probate.journal.users import users_of_folder as users_of_folder
    from probate.journal.users import users_of_socket as users_of_socket

#: The public names of each module; the block above says the same to checkers.
_HOMES: Final = by_name(
    {
        "probate.journal.arming": "Reaper",
        "probate.journal.handles": (
            "boot_id file_handle ipc_namespace open_process pid_namespace process_handle "
            "queue_handle"
        ),
        "probate.journal.hostreaper": "ReaperLoan host_reaper",
        "probate.journal.header": "is_process_dead",
        "probate.journal.named": "NEW Named new_file random_path",
        "probate.journal.notice": "Notice",
        "probate.journal.pinned": "known_identity name_asked_for path_identity reclaim_path",
        "probate.journal.sysv": "SysvIdentity SysvSort may_be_there reclaim_sysv sysv_named "
        "sysv_status with_sysv_key",
        "probate.journal.users": "users_of_file users_of_folder users_of_socket",
    }
)
__all__ = list(_HOMES)
if not TYPE_CHECKING:
    # Unseen by checkers, to whom a misspelt name is an error.
    __getattr__ = lazy_names(__name__, _HOMES)
