"""A test suite that leaves nothing behind, and is told if it does.

pytest --probate-leaks examples/test_shout.py
"""

import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from probate import Process, ProcessManager

Address = tuple[str, int]


class Shout(socketserver.StreamRequestHandler):
    """What is tested: it says back what it hears, louder."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.readline().upper())


@pytest.fixture
def address() -> Iterator[Address]:
    """Where a server listens, which is stopped after the test, as is its thread."""
    with socketserver.TCPServer(("127.0.0.1", 0), Shout) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield "127.0.0.1", server.server_address[1]
        server.shutdown()
        thread.join()


def test_it_shouts(address: Address) -> None:
    """All that the test opens it closes itself."""
    with socket.create_connection(address) as client:
        client.sendall(b"hello\n")

        assert client.recv(100) == b"HELLO\n"


def test_it_takes_silence_for_an_answer(address: Address, process: Process) -> None:
    """What `process` owns is given back after the test, also if that fails halfway."""
    client = socket.create_connection(address)
    process.adopt(client)
    client.shutdown(socket.SHUT_WR)

    assert client.recv(100) == b""


def test_a_program_may_hang_about(address: Address, process_manager: ProcessManager) -> None:
    """So are programs that were started by `process_manager`, with all that they have started."""
    program = f"""
import socket, time
with socket.create_connection({address}) as client:
    client.sendall(b"hello\\n")
    print(client.recv(100).decode(), flush=True)
time.sleep(1000)
"""
    started = process_manager.spawn([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert started.stdout is not None
    with started.stdout as heard:
        assert heard.readline() == b"HELLO\n"
