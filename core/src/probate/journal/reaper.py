"""The reaper: does what a dead host cannot do any more, whatever it died of.

Run as a program with nothing but the standard library, so that it is small while it waits.
Descriptor 0 is a SOCK_SEQPACKET socket. The host sends its own pidfd first, and gets the reaper's
back: the reaper is ready. With the pidfd come, as JSON, the program that is to settle the host's
estate, and one to start at once; each is a list of arguments, empty if there is none. Then:

    +NUMBER with a pidfd   guard this OS process: should the host die, continue it and its group
    -NUMBER                guard it no more
    .                      the host has given back all: there is nothing to settle

When the host has died, replaced itself by another program (execve closes its end), or closed the
socket, all that are still guarded get SIGCONT. The descriptors came from the host and refer to
the very processes that it stopped, so that none is looked up by pid. When it has died, and has not
said that all is given back, this process becomes the program that settles.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys

#: Seconds that the host has to introduce itself.
_INTRODUCTION = 10

#: The most bytes of an introduction: two programs, with their arguments.
_MOST_BYTES = 1 << 17

#: PIDFD_SIGNAL_PROCESS_GROUP, include/uapi/linux/pidfd.h.
_PROCESS_GROUP = 1 << 2


def main() -> None:
    """Guard until the host is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # The child of a dead parent is nobody's descendant: who kills the host's tree does not find it.
    if os.fork():
        os._exit(0)
    host = socket.socket(fileno=0)
    host.settimeout(_INTRODUCTION)
    introduction, descriptors, _, _ = socket.recv_fds(host, _MOST_BYTES, 1)
    if not descriptors:
        return
    host_pidfd = descriptors[0]
    successor, first = json.loads(introduction)
    own_pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(host, [b"!"], [own_pidfd])
    os.close(own_pidfd)
    if first:
        start(first)
    has_given_back = guard(host, host_pidfd)
    if successor and not has_given_back:
        host.close()
        # It may live on as another program, and what it made with it.
        select.select([host_pidfd], [], [])
        os.open(os.devnull, os.O_RDONLY)
        os.execv(successor[0], successor)  # noqa: S606  as the host has it


def start(program: list[str]) -> None:
    """Start a program that is nobody's child."""
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.execv(program[0], program)  # noqa: S606  as the host has it
        os._exit(0)
    os.waitpid(child, 0)


def guard(host: socket.socket, host_pidfd: int) -> bool:
    """Serve the host while it lives; then continue who is left. Tell whether all is given back."""
    guarded: dict[bytes, int] = {}
    host.setblocking(False)
    poll = select.poll()
    poll.register(host.fileno(), select.POLLIN)
    # Its end of the socket may outlive it, in the hands of a child that it forked.
    poll.register(host_pidfd, select.POLLIN)
    try:
        while True:
            events = [descriptor for descriptor, _ in poll.poll()]
            is_over = serve(host, guarded)
            if is_over is not None:
                return is_over
            if host_pidfd in events:
                return False
    finally:
        for pidfd in guarded.values():
            let_go(pidfd)


def serve(host: socket.socket, guarded: dict[bytes, int]) -> bool | None:
    """Take all requests that are there.

    Returns None if more may come; else whether the host has said that all is given back.
    """
    while True:
        try:
            request, descriptors, _, _ = socket.recv_fds(host, 64, 1)
        except BlockingIOError:
            return None
        except OSError:
            return False
        if not request:
            return False
        if request == b".":
            return True
        if request[:1] == b"+" and descriptors:
            guarded[request[1:]] = descriptors[0]
        elif (pidfd := guarded.pop(request[1:], None)) is not None:
            os.close(pidfd)


def let_go(pidfd: int) -> None:
    """Continue an OS process, and the group that it leads or led."""
    for flags in (_PROCESS_GROUP, 0):
        # Gone, or a kernel that does not know the flag.
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(pidfd, signal.SIGCONT, None, flags)


if __name__ == "__main__":
    try:
        main()
    finally:
        # The quickest way out; there is nothing to tidy up.
        sys.stderr.flush()
        os._exit(0)
