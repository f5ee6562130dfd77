"""Wrong arguments, of both halves: a clear error, before anything is acquired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ProcessManager
    from probate_rings import IoUring, IoUringManager, ZeroCopyIpc, ZeroCopyRing


@pytest.fixture
def ring(manager: ProcessManager, iouring: IoUringManager) -> IoUring:
    """Of a process that ends with the test."""
    return iouring.create_ring(manager.create_process("uring").pid, 8)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"slots": 0}, ValueError, "slots must be 1 to 65536, got 0"),
        ({"slots": 65537}, ValueError, "slots must be"),
        ({"slots": 2.0}, TypeError, "slots must be an int"),
        ({"slots": True}, TypeError, "slots must be an int"),
        ({"block_size": 0}, ValueError, "block_size must be 1 to 1073741824"),
        ({"block_size": "4k"}, TypeError, "block_size must be an int"),
    ],
)
def test_bad_sizes_are_refused(
    manager: ProcessManager,
    zerocopy: ZeroCopyIpc,
    arguments: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    """Before anything is acquired."""
    process = manager.create_process("bad")

    with pytest.raises(error, match=words):
        zerocopy.create_ring(process.pid, **arguments)
    assert not manager.orchestrator.has_resources(process.pid)


@pytest.mark.parametrize(
    ("length", "error"), [(-1, ValueError), (17, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_bad_lengths_are_refused(
    manager: ProcessManager, zerocopy: ZeroCopyIpc, length: int, error: type[Exception]
) -> None:
    """And the block stays reserved."""
    process = manager.create_process("length")
    ring = zerocopy.create_ring(process.pid, block_size=16)
    block = ring.reserve()

    with pytest.raises(error, match="message"):
        ring.submit(length)
    with pytest.raises(TypeError, match="expected the view of a block"):
        ring.submit(1, b"block")  # type: ignore[arg-type]  # the point
    ring.submit(16, block)


def test_close_takes_rings_only(zerocopy: ZeroCopyIpc) -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError, match="expected a ZeroCopyRing"):
        zerocopy.close(1, cast("ZeroCopyRing", object()))


@pytest.mark.parametrize("fds", [3, (), (1, 2), (1, 2, 3, 4), (1, 2, "3"), "abc", (1, 2, True)])
def test_attach_wants_three_descriptors(
    manager: ProcessManager, zerocopy: ZeroCopyIpc, fds: Any
) -> None:
    """Anything else is a TypeError, before anything is acquired."""
    with pytest.raises(TypeError, match="three descriptors"):
        zerocopy.attach(manager.create_process("bad").pid, fds)


def test_descriptors_that_are_not_open_are_an_oserror(
    manager: ProcessManager, zerocopy: ZeroCopyIpc
) -> None:
    """From the kernel."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        zerocopy.attach(manager.create_process("bad").pid, (1 << 20, 0, 0))


@pytest.mark.parametrize(
    ("entries", "error"),
    [(0, ValueError), (-1, ValueError), (32769, ValueError), (8.0, TypeError), (True, TypeError)],
)
def test_bad_entries_are_refused(
    manager: ProcessManager, iouring: IoUringManager, entries: Any, error: type[Exception]
) -> None:
    """Before anything is acquired."""
    process = manager.create_process("bad")

    with pytest.raises(error, match="entries"):
        iouring.create_ring(process.pid, entries)
    assert not manager.orchestrator.has_resources(process.pid)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda ring: ring.read(0, 0), ValueError, "must be 1 to 2147479552"),
        (lambda ring: ring.read(0, bytearray()), ValueError, "must be 1 to 2147479552"),
        (lambda ring: ring.read(0, 2**31), ValueError, "must be 1 to 2147479552"),
        (lambda ring: ring.read(0, b"const"), TypeError, "bytearray or a number"),
        (lambda ring: ring.read(0, memoryview(bytearray(3))), TypeError, "bytearray or a number"),
        (lambda ring: ring.read(0, True), TypeError, "bytearray or a number"),
        (lambda ring: ring.read(-1, 5), ValueError, "no open file descriptor"),
        (lambda ring: ring.read(2**40, 5), ValueError, "no open file descriptor"),
        (lambda ring: ring.read("0", 5), TypeError, "expected a file descriptor"),
        (lambda ring: ring.read(0, 5, -1), ValueError, "an offset that is not None must be 0 to"),
        (
            lambda ring: ring.read(0, 5, 2**63),
            ValueError,
            "an offset that is not None must be 0 to",
        ),
        (lambda ring: ring.read(0, 5, 1.5), TypeError, "an offset that is not None must be an int"),
        (lambda ring: ring.write(0, b""), ValueError, "must be 1 to 2147479552"),
        (lambda ring: ring.write(0, "text"), TypeError, "can be written"),
        (lambda ring: ring.write(0, memoryview(b"x")), TypeError, "can be written"),
        (lambda ring: ring.timeout(-1), ValueError, "number of seconds|0 to"),
        (lambda ring: ring.timeout(float("nan")), ValueError, "0 to"),
        (lambda ring: ring.timeout(float("inf")), ValueError, "0 to"),
        (lambda ring: ring.timeout(1e30), ValueError, "0 to"),
        (lambda ring: ring.timeout("1"), TypeError, "number of seconds"),
        (lambda ring: ring.reap(-1), ValueError, "must be at least 0"),
        (lambda ring: ring.reap(1.0), TypeError, "must be an int"),
    ],
)
def test_bad_arguments_never_reach_the_kernel(
    ring: IoUring, call: Callable[[Any], object], error: type[Exception], words: str
) -> None:
    """A clear error, and nothing is prepared."""
    with pytest.raises(error, match=words):
        call(ring)
    assert ring.submit() == 0
