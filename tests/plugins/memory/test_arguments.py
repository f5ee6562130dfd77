"""Bad arguments are refused before anything is acquired."""

from __future__ import annotations

import mmap
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from probate import NotOwnedError, UnadoptableError

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_memory import MemoryManager


@pytest.mark.parametrize(
    ("method", "arguments", "keywords", "error"),
    [
        ("allocate", (0,), {}, ValueError),
        ("allocate", (-1,), {}, ValueError),
        ("allocate", (sys.maxsize + 1,), {}, ValueError),
        ("allocate", ("1",), {}, TypeError),
        ("allocate", (1.0,), {}, TypeError),
        ("allocate", (True,), {}, TypeError),
        ("free", (b"x",), {}, TypeError),
        ("create_shared_memory", (), {"size": 0}, ValueError),
        ("create_shared_memory", (), {"size": None}, TypeError),
        ("create_shared_memory", (b"name",), {"size": 1}, TypeError),
        ("create_shared_memory", ("",), {"size": 1}, ValueError),
        ("create_shared_memory", ("/",), {"size": 1}, ValueError),
        ("create_shared_memory", ("..",), {"size": 1}, ValueError),
        ("create_shared_memory", ("a/b",), {"size": 1}, ValueError),
        ("create_shared_memory", ("a\0b",), {"size": 1}, ValueError),
        ("create_shared_memory", ("x" * 256,), {"size": 1}, ValueError),
        ("open_shared_memory", (7,), {}, TypeError),
        ("open_shared_memory", ("../etc/passwd",), {}, ValueError),
        ("create_segment", (0,), {}, ValueError),
        ("create_segment", (1 << 70,), {}, ValueError),
        ("create_segment", (8,), {"key": "key"}, TypeError),
        ("create_segment", (8,), {"key": 2**31}, ValueError),
        ("create_segment", (8,), {"mode": 0o1600}, ValueError),
        ("create_segment", (8,), {"mode": "rw"}, TypeError),
        ("open_segment", (-1,), {}, ValueError),
        ("open_segment", ("1",), {}, TypeError),
        ("open_segment_by_key", (2**31,), {}, ValueError),
        ("open_segment_by_key", (0,), {}, ValueError),
        ("adopt_shared_memory", (b"x",), {"as_owner": True}, TypeError),
        ("adopt_segment", (b"x",), {"as_owner": True}, TypeError),
        ("close", (b"x",), {}, TypeError),
        ("close", (memoryview(b"x"),), {}, NotOwnedError),
        ("unlink", ("name",), {}, TypeError),
    ],
)
def test_bad_arguments_are_refused(
    manager: ProcessManager,
    memory: MemoryManager,
    method: str,
    arguments: tuple[object, ...],
    keywords: dict[str, object],
    error: type[Exception],
) -> None:
    """A clear error, and nothing owned."""
    process = manager.create_process("bad")

    with pytest.raises(error):
        getattr(memory, method)(process.pid, *arguments, **keywords)

    assert not manager.orchestrator.has_resources(process.pid)


def test_the_role_is_said_plainly(manager: ProcessManager, memory: MemoryManager) -> None:
    """Owner or user, and a mere user has nothing to wipe."""
    process = manager.create_process("bad")
    shm = memory.create_shared_memory(process.pid, size=1)
    other = memory.open_shared_memory(process.pid, shm.name)
    wrong: Any = 1

    with pytest.raises(TypeError, match="True or False"):
        memory.adopt_shared_memory(process.pid, other, as_owner=wrong)
    with pytest.raises(ValueError, match="mere user"):
        memory.adopt_shared_memory(process.pid, other, as_owner=False, wipe=True)


def test_what_belongs_to_other_kinds_is_left_to_them(
    manager: ProcessManager, memory: MemoryManager
) -> None:
    """The adopt hook says None to anything that is no shared memory."""
    process = manager.create_process("other")
    with socket.socket() as sock, mmap.mmap(-1, 8) as native:
        for thing in (sock, native, memoryview(b"x"), bytearray(3), sock.fileno(), None, object()):
            assert memory.adopt(process.pid, thing) is None

    with pytest.raises(UnadoptableError):
        process.adopt(memoryview(b"x"))
