"""The reaper: does what a dead host cannot do any more, whatever it died of.

Run as a program with nothing but the standard library, so that it is small while it waits.
Descriptor 0 is a SOCK_SEQPACKET socket. The host sends its own pidfd first, and gets the reaper's
back: the reaper is ready. Then:

    +NUMBER with a pidfd   guard this OS process: should the host die, continue it and its group
    -NUMBER                guard it no more
    =[NAME, PROGRAM]       should the host die, run this program, which settles a part of its estate
    .NAME                  that part is given back: there is nothing to settle
    !PROGRAM with a file   run this program now, which has the file as its standard input

A program is a list of arguments; what follows = and ! is JSON.

When the host has died, replaced itself by another program (execve closes its end), or closed the
socket, all that are still guarded get SIGCONT. The descriptors came from the host and refer to
the very processes that it stopped, so that none is looked up by pid. When it has died, and parts of
its estate are still to be settled, this process becomes the program that settles.
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

#: The most bytes of a request: a program with its arguments, of which one is a path.
MOST_BYTES = 1 << 13

#: PIDFD_SIGNAL_PROCESS_GROUP, include/uapi/linux/pidfd.h.
_PROCESS_GROUP = 1 << 2


def main() -> None:
    """Guard until the host is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # A host that ignores it hands that down, and there would be no child to wait for (wait(2)).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # The child of a dead parent is nobody's descendant: who kills the host's tree does not find it.
    if os.fork():
        os._exit(0)
    host = socket.socket(fileno=0)
    host.settimeout(_INTRODUCTION)
    _, descriptors, _, _ = socket.recv_fds(host, 1, 1)
    if not descriptors:
        return
    host_pidfd = descriptors[0]
    own_pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(host, [b"!"], [own_pidfd])
    os.close(own_pidfd)
    programs = guard(host, host_pidfd)
    host.close()
    if programs:
        # It may live on as another program, and what it made with it.
        select.select([host_pidfd], [], [])
        os.open(os.devnull, os.O_RDONLY)
        for program in programs[1:]:
            start(program)
        os.execv(programs[0][0], programs[0])  # noqa: S606  as the host has it


def start(program: list[str], stdin: int = -1) -> None:
    """Start a program that is nobody's child, with that standard input, or none."""
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin < 0 else stdin, 0)
            os.execv(program[0], program)  # noqa: S606  as the host has it
        os._exit(0)
    os.waitpid(child, 0)


def guard(host: socket.socket, host_pidfd: int) -> list[list[str]]:
    """Serve the host while it lives; then continue who is left. Return the programs to run."""
    guarded: dict[bytes, int] = {}
    programs: dict[str, list[str]] = {}
    host.setblocking(False)
    poll = select.poll()
    poll.register(host.fileno(), select.POLLIN)
    # Its end of the socket may outlive it, in the hands of a child that it forked.
    poll.register(host_pidfd, select.POLLIN)
    try:
        is_over = False
        while not is_over:
            events = [descriptor for descriptor, _ in poll.poll()]
            # What it has said before it died is served first.
            is_over = not serve(host, guarded, programs) or host_pidfd in events
    finally:
        for pidfd in guarded.values():
            let_go(pidfd)
    return list(programs.values())


def serve(host: socket.socket, guarded: dict[bytes, int], programs: dict[str, list[str]]) -> bool:
    """Take all requests that are there; tell whether more may come."""
    while True:
        try:
            request, descriptors, _, _ = socket.recv_fds(host, MOST_BYTES, 1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        what, rest = request[:1], request[1:]
        if what == b"+" and descriptors:
            guarded[rest] = descriptors[0]
        elif what == b"-":
            if (pidfd := guarded.pop(rest, None)) is not None:
                os.close(pidfd)
        elif what == b"=":
            name, program = json.loads(rest)
            programs[name] = program
        elif what == b".":
            programs.pop(os.fsdecode(rest), None)
        elif what == b"!":
            for descriptor in descriptors:
                start(json.loads(rest), descriptor)
                os.close(descriptor)
        else:
            return False


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
