"""A keeper that is started as a program, and not forked: for a front that is a host of its own.

A fork would have the memory of the host, and its finalizers, without the threads that they need.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from probate.journal.header import import_path
from probate.run.facts import RunFacts, SharedPage

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The child of a dead parent is nobody's descendant: who kills the host's tree does not find it.
_PROGRAM: Final = (
    "import json, os, sys; os.fork() and os._exit(0); sys.path[:], *said = json.load(sys.stdin); "
    "from probate.run.apart import main; main(*said)"
)


def start_apart(
    theirs: socket.socket,
    joining: socket.socket,
    front: int,
    facts: RunFacts,
    page: SharedPage,
    listener: int,
) -> None:
    """Have a new process be the keeper. Raises OSError."""
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError("this program has no Python interpreter to run it")
    numbers = (theirs.fileno(), joining.fileno(), front, page.fd, listener)
    said = (import_path(), sys.orig_argv, facts.to_json(), numbers)
    # An argument may not be as long as all of a host's are together (execve(2)). Not by a pipe of
    # subprocess, which some versions leave open where there are no descriptors for the rest.
    ours, its = socket.socketpair()
    with ours, its:
        starter = subprocess.Popen(  # noqa: S603  our interpreter and our program
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=its.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=[number for number in numbers if number >= 0],
        )
        its.close()
        try:
            ours.sendall(json.dumps(said).encode())
        finally:
            ours.close()
            starter.wait()


def main(command: list[str], facts: dict[str, object], numbers: Sequence[int]) -> None:
    """Be the keeper of a run: what such a program does."""
    from probate.run.serving import serve

    # In the journal, it stands for its front.
    sys.orig_argv = command
    channel, joining, front, page, listener = numbers
    serve(
        socket.socket(fileno=channel),
        socket.socket(fileno=joining),
        front,
        RunFacts.from_json(facts),
        SharedPage(page),
        listener,
    )
