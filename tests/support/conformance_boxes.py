"""A kind of which everything can be checked, and broken: boxes, of files, sockets and bytes."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from probate import (
    CleanupStats,
    Ordering,
    Outcome,
    OwnershipTable,
    ResourceId,
    ResourceRecord,
    hookimpl,
)
from probate.journal import (
    Named,
    name_asked_for,
    new_file,
    path_identity,
    reclaim_path,
    users_of_file,
)
from probate.system import unlink_if_same
from probate.testing import KindDescription, NameDescription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from probate.hookspecs import AnyFuture

SIZE = 64


class Box:
    """A file with a name, open, and a pair of sockets; in use by so many users."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = new_file(path)
        self.near, self.far = socket.socketpair()
        self.users = 0
        self.gate = threading.Event()
        self.gate.set()
        #: A hook that was left behind may close it as the check does.
        self._closing = threading.Lock()

    def use(self) -> None:
        os.fstat(self.fd)
        self.near.send(b".")
        self.far.recv(1)

    def close(self) -> Outcome:
        """Remove the file, and close everything."""
        try:
            return unlink_if_same(self.path, os.fstat(self.fd))
        finally:
            self.close_only()

    def close_only(self) -> None:
        with self._closing:
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1
        self.near.close()
        self.far.close()


class Place:
    """Where boxes are made, for as long as a check takes, and all that were."""

    def __init__(self) -> None:
        self.folder = ""
        self.boxes: list[Box] = []
        self.undo = contextlib.ExitStack()

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as self.folder, contextlib.ExitStack() as self.undo:
            try:
                yield
            finally:
                for box in self.boxes:
                    box.close_only()
                self.boxes.clear()

    def new_path(self) -> str:
        return f"{self.folder}/{os.urandom(8).hex()}"

    def new_box(self, path: str = "") -> Box:
        box = Box(path or self.new_path())
        self.boxes.append(box)
        return box


PLACE = Place()


class Boxes:
    """The kind, written out; whatever it does is one method, that a mutant replaces."""

    before: tuple[str, ...] = ("sockets",)

    def __init__(self) -> None:
        self.table: OwnershipTable[Box] = OwnershipTable(
            "boxes", self.release, identity=self.identity
        )

    def identity(self, box: Box) -> object:
        return box

    def make(self, pid: int) -> Box:
        path = PLACE.new_path()
        return self.table.acquire(
            pid, lambda: PLACE.new_box(path), nbytes=SIZE, named=self.named(path)
        )

    def give_back(self, pid: int, box: Box) -> None:
        self.table.give_back(pid, box)

    def named(self, path: str) -> Named[Box] | None:
        before = name_asked_for(path)
        return Named(f"box {path}", before, lambda box: path_identity(box.path, box.fd))

    def release(self, box: Box) -> Outcome:
        box.gate.wait(60)
        return Outcome.BUSY if box.users else box.close()

    @hookimpl
    def ordering(self) -> Ordering:
        return Ordering(15, before=self.before)

    @hookimpl
    def has_resources(self, pid: int) -> bool:
        return pid in self.table

    @hookimpl
    def cleanup(self, pid: int) -> CleanupStats:
        return self.table.cleanup(pid)

    @hookimpl
    def quiesce(self, pid: int) -> Iterable[AnyFuture]:
        return ()

    @hookimpl
    def adopt(self, pid: int, resource: object) -> ResourceId | None:
        if not isinstance(resource, Box):
            return None
        return self.table.add(pid, resource, named=self.named(resource.path))

    @hookimpl
    def reclaim(self, record: ResourceRecord, dry_run: bool) -> Outcome:
        return reclaim_path(record, dry_run, in_use=users_of_file)


@contextlib.contextmanager
def keep_busy(box: Box) -> Iterator[None]:
    box.users += 1
    try:
        yield
    finally:
        box.users -= 1


@contextlib.contextmanager
def stall(box: Box) -> Iterator[None]:
    box.gate.clear()
    try:
        yield
    finally:
        box.gate.set()


@contextlib.contextmanager
def share(box: Box) -> Iterator[Callable[[], object]]:
    with box.near.dup() as near, box.far.dup() as far:
        yield lambda: (near.send(b"."), far.recv(1))


def describe(kind: Callable[[], Any]) -> KindDescription[Any, Box]:
    """Boxes, as this kind keeps them."""
    return KindDescription(
        kind=kind,
        make=lambda kind, pid: kind.make(pid),
        identify=lambda box: box.path,
        is_alive=os.path.lexists,
        use=Box.use,
        give_back=lambda kind, pid, box: kind.give_back(pid, box),
        end=Box.close,
        make_elsewhere=lambda: PLACE.new_box(),
        keep_busy=keep_busy,
        stall=stall,
        share=share,
        names=NameDescription(
            name=lambda box: box.path,
            is_there=os.path.lexists,
            remove=os.unlink,
            succeed=lambda path: os.close(new_file(path)),
            in_use=open,
        ),
        around=PLACE.around,
        many=12,
        patience=1.0,
    )
