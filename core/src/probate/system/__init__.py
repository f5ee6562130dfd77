"""What the kernel and the interpreter offer, for the core and for plugins alike.

arrivals.py    Arrivals: all OS processes, and those that come while they are looked at
osprocess.py   OsProcess: one OS process, pinned by a pidfd; what /proc says of it
deathwatch.py  death_watch: the thread that the kernel tells of deaths
identity.py    which file a number or path refers to; closed and unlinked only while it does
numbers.py     what the kernel says that numbers refer to
mqueue.py      is_on_mqueue: what is a message queue, and looks like a file
descriptor.py  OwnedDescriptor: a number that is closed only while it is the same file
making.py      built: nothing stays of what an exception fell into as it was made
polling.py     who polls a number: epoll instances, event loops and selectors
selecting.py   selectors that poll without an epoll instance
detaching.py   let_go: event loops and selectors poll a number no more
lingering.py   sockets whose close would wait
signalwatch.py  signals noticed even while the main thread runs no Python code
ownsignals.py  signals of this process: checked, blocked over a fork, their default action
wakeup.py      the number that signals are written to, given up
blocked.py     in which numbers other threads are blocked
sharing.py     who else has a socket open
peer.py        who is at the other end of a unix socket, and descriptors from there
subreaper.py   orphans come to us
mapdescriptor.py  MapDescriptor: the number that an mmap.mmap keeps to itself
filemaps.py    which files an OS process has mapped
forking.py     forget_in_forked_child: a forked child owns nothing
allobjects.py  heap: all objects of the interpreter, looked at by one at a time
future.py      Future: one that an exception of a signal handler leaves whole
closing.py     all descriptors let go of, in a process that was forked to live on by itself
clib.py        the C library, for what Python has no functions for
callthread.py  CallThread: calls one after another, on a thread that can be left behind
log.py         the logger `probate`
exiting.py     threads while the interpreter exits
interrupts.py  exceptions that fall in from outside, and a way to go on; threads started whole
loops.py       calls on the event loop that a thing belongs to
transport.py   BoundTransport: a transport of an event loop, closed where it belongs
tagging.py     numbers that a process hands on to all that it starts
tree.py        TreeRemoval: all that is in a folder, through no link, never across a mount
trustedfile.py small files, read only if nobody else can have written them
lazy.py        modules and names imported when first used
spelling.py    names that may have been meant
arguments.py   checked_int: the one check for whole numbers

Public: plugins import these names from here. Each is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from probate.system.lazy import by_name

if TYPE_CHECKING:
    from probate.system.allobjects import heap as heap
    from probate.system.arguments import checked_int as checked_int
    from probate.system.arrivals import Arrivals as Arrivals
    from probate.system.blocked import NOWHERE as NOWHERE
    from probate.system.blocked import Blocked as Blocked
    from probate.system.blocked import blocked_in as blocked_in
    from probate.system.blocked import has_other_threads as has_other_threads
    from probate.system.callthread import CallThread as CallThread
    from probate.system.deathwatch import DeathWatch as DeathWatch
    from probate.system.deathwatch import Timer as Timer
    from probate.system.deathwatch import death_watch as death_watch
    from probate.system.descriptor import OwnedDescriptor as OwnedDescriptor
    from probate.system.descriptor import open_owned as open_owned
    from probate.system.descriptor import opened as opened
    from probate.system.descriptor import opened_all as opened_all
    from probate.system.detaching import TURN as TURN
    from probate.system.detaching import LetGo as LetGo
    from probate.system.detaching import called_back as called_back
    from probate.system.detaching import drop_unseen as drop_unseen
    from probate.system.detaching import let_all_go as let_all_go
    from probate.system.detaching import let_go as let_go
    from probate.system.detaching import number_of as number_of
    from probate.system.detaching import package_of as package_of
    from probate.system.detaching import wait_a_turn as wait_a_turn
    from probate.system.filemaps import FileMap as FileMap
    from probate.system.filemaps import file_maps as file_maps
    from probate.system.forking import forget_in_forked_child as forget_in_forked_child
    from probate.system.future import Future as Future
    from probate.system.identity import FileIdentity as FileIdentity
    from probate.system.identity import close_if_same as close_if_same
    from probate.system.identity import identify as identify
    from probate.system.identity import is_still as is_still
    from probate.system.identity import unlink_if_same as unlink_if_same
    from probate.system.interrupts import Elsewhere as Elsewhere
    from probate.system.interrupts import start_thread as start_thread
    from probate.system.lazy import lazy_module as lazy_module
    from probate.system.lazy import lazy_names as lazy_names
    from probate.system.lingering import close_at_once as close_at_once
    from probate.system.loops import call_on_loop as call_on_loop
    from probate.system.loops import running_loop as running_loop
    from probate.system.making import built as built
    from probate.system.making import give_back as give_back
    from probate.system.making import take as take
    from probate.system.making import take_all as take_all
    from probate.system.making import using as using
    from probate.system.mapdescriptor import MapDescriptor as MapDescriptor
    from probate.system.mqueue import is_on_mqueue as is_on_mqueue
    from probate.system.numbers import links_of as links_of
    from probate.system.numbers import path_of as path_of
    from probate.system.osprocess import OsProcess as OsProcess
    from probate.system.osprocess import open_pidfds as open_pidfds
    from probate.system.osprocess import read_proc as read_proc
    from probate.system.osprocess import start_time_of as start_time_of
    from probate.system.osprocess import stat_of as stat_of
    from probate.system.osprocess import ticks_since_boot as ticks_since_boot
    from probate.system.polling import objects_above as objects_above
    from probate.system.polling import polled as polled
    from probate.system.sharing import all_sharers_of as all_sharers_of
    from probate.system.sharing import sharers_of as sharers_of
    from probate.system.subreaper import is_subreaper as is_subreaper
    from probate.system.subreaper import set_subreaper as set_subreaper
    from probate.system.subreaper import subreaper_users as subreaper_users
    from probate.system.tagging import set_tag as set_tag
    from probate.system.tagging import tag_for as tag_for
    from probate.system.tagging import tag_maker as tag_maker
    from probate.system.tagging import tag_of as tag_of
    from probate.system.tagging import tag_untagged as tag_untagged
    from probate.system.transport import BoundTransport as BoundTransport
    from probate.system.transport import is_transport as is_transport
    from probate.system.transport import is_transport_class as is_transport_class
    from probate.system.transport import loop_of as loop_of
    from probate.system.transport import parts_of as parts_of
    from probate.system.transport import transport_of as transport_of
    from probate.system.tree import TreeRemoval as TreeRemoval
    from probate.system.wakeup import give_up_wakeup as give_up_wakeup

#: The public names of each module; the block above says the same to checkers.
_HOMES: Final = by_name(
    {
        "probate.system.arguments": "checked_int",
        "probate.system.arrivals": "Arrivals",
        "probate.system.blocked": "NOWHERE Blocked blocked_in has_other_threads",
        "probate.system.callthread": "CallThread",
        "probate.system.deathwatch": "DeathWatch Timer death_watch",
        "probate.system.descriptor": "OwnedDescriptor open_owned opened opened_all",
        "probate.system.detaching": (
            "TURN LetGo called_back drop_unseen let_all_go let_go number_of package_of wait_a_turn"
        ),
        "probate.system.filemaps": "FileMap file_maps",
        "probate.system.forking": "forget_in_forked_child",
        "probate.system.future": "Future",
        "probate.system.allobjects": "heap",
        "probate.system.identity": "FileIdentity close_if_same identify is_still unlink_if_same",
        "probate.system.interrupts": "Elsewhere start_thread",
        "probate.system.lazy": "lazy_module lazy_names",
        "probate.system.lingering": "close_at_once",
        "probate.system.loops": "call_on_loop running_loop",
        "probate.system.making": "built give_back take take_all using",
        "probate.system.mapdescriptor": "MapDescriptor",
        "probate.system.mqueue": "is_on_mqueue",
        "probate.system.numbers": "links_of path_of",
        "probate.system.osprocess": (
            "OsProcess open_pidfds read_proc start_time_of stat_of ticks_since_boot"
        ),
        "probate.system.polling": "objects_above polled",
        "probate.system.sharing": "all_sharers_of sharers_of",
        "probate.system.subreaper": "is_subreaper set_subreaper subreaper_users",
        "probate.system.tagging": "set_tag tag_for tag_maker tag_of tag_untagged",
        "probate.system.transport": (
            "BoundTransport is_transport is_transport_class loop_of parts_of transport_of"
        ),
        "probate.system.tree": "TreeRemoval",
        "probate.system.wakeup": "give_up_wakeup",
    }
)
__all__ = list(_HOMES)
if not TYPE_CHECKING:
    from probate.system.lazy import lazy_names

    # Unseen by checkers, to whom a misspelt name is an error.
    __getattr__ = lazy_names(__name__, _HOMES)
