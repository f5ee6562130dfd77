"""What arrives from another process is not trusted: descriptors, header, indices."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from probate.testing.witness import KernelView
from probate_rings import (
    RingClosedError,
    RingCorruptedError,
    RingFormatError,
    ZeroCopyIpc,
    ZeroCopyRing,
    layout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from probate import ProcessManager

pytestmark = pytest.mark.usefixtures("nothing_remains")

WORD = st.one_of(st.integers(0, 80), st.integers(0, 2**64 - 1))


@pytest.fixture
def bells() -> Iterator[tuple[int, int]]:
    pair = os.eventfd(0), os.eventfd(0)
    yield pair
    for fd in pair:
        os.close(fd)


def poke(ring: ZeroCopyRing, word: int, value: int) -> None:
    """Write a word as a hostile peer would: behind the ring's back."""
    os.pwrite(ring.fileno(), value.to_bytes(8, "little"), word * 8)


def memfd(size: int, seals: int) -> int:
    fd = os.memfd_create("other", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


ALL_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: os.open("/dev/null", os.O_RDWR), "is no memfd"),
        (lambda: os.eventfd(0), "is no memfd"),
        (lambda: memfd(1 << 20, 0), "not sealed"),
        (lambda: memfd(1 << 20, fcntl.F_SEAL_SHRINK), "not sealed"),
        (lambda: memfd(100, ALL_SEALS), "100 bytes are too few"),
        (lambda: memfd(1 << 20, ALL_SEALS), "no ring: it begins with 0x0"),
    ],
)
def test_what_is_no_ring_is_refused(
    manager: ProcessManager,
    zerocopy: ZeroCopyIpc,
    bells: tuple[int, int],
    make: Callable[[], int],
    words: str,
) -> None:
    """With what is wrong; nothing is owned, nothing stays open or mapped."""
    process = manager.create_process("attacher")
    fd = make()
    before = KernelView.take()
    try:
        with pytest.raises(RingFormatError, match=words):
            zerocopy.attach(process.pid, (fd, *bells))

        assert before.changes() == []
        assert not manager.orchestrator.has_resources(process.pid)
    finally:
        os.close(fd)


def test_doorbells_must_be_eventfds(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """A pipe in their place could block whoever rings."""
    process = manager.create_process("attacher")
    ring = zerocopy.create_ring(process.pid)
    reader, writer = os.pipe()
    try:
        with pytest.raises(RingFormatError, match="where an eventfd is expected"):
            zerocopy.attach(process.pid, (ring.fileno(), reader, writer))
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    ("word", "value", "words"),
    [
        (0, 7, "no ring"),
        (1, 99, "version 99"),
        (2, 0, "impossible size: slots"),
        (2, 5, "its header says"),
        (2, 2**64 - 1, "impossible size: slots"),
        (3, 2**63, "impossible size: block_size"),
        (3, 8192, "its header says"),
        (4, 1, "its header says 1"),
        (layout.PEER, layout.OPEN, "has, or had, its one peer"),
        (layout.PEER, layout.CLOSED, "has, or had, its one peer"),
    ],
)
def test_a_header_that_lies_is_refused(
    manager: ProcessManager, zerocopy: ZeroCopyIpc, word: int, value: int, words: str
) -> None:
    """Each constant is checked against the size that the kernel tells."""
    process = manager.create_process("attacher")
    ring = zerocopy.create_ring(process.pid)
    poke(ring, word, value)

    with pytest.raises(RingFormatError, match=words):
        zerocopy.attach(process.pid, ring.filenos())


def test_a_ring_has_one_peer(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """A second one is refused, also after the first has gone."""
    process = manager.create_process("two")
    ring = zerocopy.create_ring(process.pid)
    peer = zerocopy.attach(process.pid, ring.filenos())
    for _ in range(2):
        with pytest.raises(RingFormatError, match="has, or had, its one peer"):
            zerocopy.attach(process.pid, ring.filenos())
        peer.close()


def test_the_size_is_sealed(manager: ProcessManager, zerocopy: ZeroCopyIpc) -> None:
    """No peer can shrink the memory under the owner, which would be SIGBUS."""
    process = manager.create_process("sealed")
    ring = zerocopy.create_ring(process.pid)

    for size in (0, mmap.PAGESIZE, 1 << 30):
        with pytest.raises(PermissionError):
            os.ftruncate(ring.fileno(), size)


@settings(max_examples=60, deadline=None)
@given(submitted=WORD, completed=WORD, entry=WORD, length=WORD, block=WORD)
@example(submitted=1, completed=5, entry=4, length=1, block=0)
@example(submitted=1, completed=5, entry=0, length=65, block=0)
@example(submitted=5, completed=9, entry=0, length=0, block=4)
def test_no_word_in_memory_leads_astray(
    submitted: int, completed: int, entry: int, length: int, block: int
) -> None:
    """Whatever the other end writes, views lie within a block, or it is RingCorruptedError."""
    pid = 7
    ipc = ZeroCopyIpc()
    with ipc.create_ring(pid, slots=4, block_size=64) as ring:
        poke(ring, layout.SUBMITTED, submitted)
        poke(ring, layout.COMPLETED, completed)
        start = ring.geometry.submissions // 8
        poke(ring, start, entry)
        poke(ring, start + 1, length)
        poke(ring, ring.geometry.completions // 8, block)
        for take, longest in ((ring.receive, 64), (ring.reserve, 64)):
            for _ in range(6):
                try:
                    view = take()
                except RingCorruptedError:
                    break
                if view is None:
                    break
                assert len(view) <= longest


@pytest.mark.parametrize("queue", ["submission", "completion"])
def test_a_block_cannot_be_given_twice(
    manager: ProcessManager, zerocopy: ZeroCopyIpc, queue: str
) -> None:
    """The same block in two hands is corruption, and is told as such."""
    process = manager.create_process("twice")
    ring = zerocopy.create_ring(process.pid, slots=4)
    if queue == "completion":
        ring.reserve()
        poke(ring, ring.geometry.completions // 8 + 1, 0)
        with pytest.raises(RingCorruptedError, match="gives back block 0 of 4"):
            ring.reserve()
    else:
        for _ in range(2):
            ring.reserve()
            ring.submit(1)
        ring.receive()
        poke(ring, ring.geometry.submissions // 8 + 2, 0)
        with pytest.raises(RingCorruptedError, match="1 bytes in block 0 of 4"):
            ring.receive()


@settings(max_examples=25, deadline=None)
@given(state=WORD, pid=WORD, started=WORD, namespace=WORD)
def test_a_lie_about_the_peers_process_harms_nobody(
    state: int, pid: int, started: int, namespace: int
) -> None:
    """At most the end takes its peer for dead; it never waits for, or touches, a process."""
    with ZeroCopyIpc().create_ring(7, slots=1) as ring:
        for offset, value in enumerate((state, pid, started, namespace)):
            poke(ring, layout.PEER + offset, value)
        try:
            assert ring.receive() is None
        except RingClosedError:
            assert state in {layout.OPEN, layout.CLOSED}
