"""What comes over a unix socket."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from probate.system.peer import receive_fds


def test_descriptors_that_are_received_are_closed_on_exec() -> None:
    """`socket.recv_fds` leaves them to whatever another thread starts just then."""
    with ExitStack() as closed:
        ours, theirs = map(
            closed.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        )
        socket.send_fds(ours, [b"two"], [ours.fileno(), theirs.fileno()])
        text, numbers = receive_fds(theirs, 10, 4)
        for number in numbers:
            closed.callback(os.close, number)

        assert text == b"two"
        assert [
            os.path.sameopenfile(n, s.fileno())
            for n, s in zip(numbers, (ours, theirs), strict=True)
        ] == [
            True,
            True,
        ]
        assert [os.get_inheritable(number) for number in numbers] == [False, False]

        ours.send(b"none")

        assert receive_fds(theirs, 10, 4) == (b"none", [])
