"""Many maps at once end as each of them ends alone, whatever odd ones there are among them."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

    from probate import ProcessManager
    from probate_mmap import MmapManager

#: What a map can be like, and what can have become of it since.
SORTS = ("made", "anonymous", "private", "read-only", "shared", "own class")
STATES = ("fine", "closed", "exported", "number is a stranger's")


class OwnMap(mmap.mmap):
    """Somebody's own class."""


class Scene:
    """Maps of one file each, and what is to be undone after."""

    def __init__(self, maps: MmapManager) -> None:
        self.maps = maps
        self.undo = contextlib.ExitStack()
        folder = self.undo.enter_context(tempfile.TemporaryDirectory())
        self.stranger = os.open(os.path.join(folder, "stranger"), os.O_CREAT | os.O_RDWR)  # noqa: PTH118  a number
        self.undo.callback(os.close, self.stranger)

    def make(self, pid: int, sort: str, adopt: Callable[[Any], object]) -> Any:
        """A map that `pid` owns."""
        if sort == "made":
            return self.maps.map_anonymous(pid, 100)
        if sort == "anonymous":
            native = mmap.mmap(-1, 100)
        else:
            access = {"private": mmap.ACCESS_COPY, "read-only": mmap.ACCESS_READ}
            fd = os.memfd_create("mapped")
            os.ftruncate(fd, 100)
            kind = OwnMap if sort == "own class" else mmap.mmap
            native = kind(fd, 100, access=access.get(sort, mmap.ACCESS_WRITE))
            os.close(fd)
        adopt(native)
        return native

    def change(self, native: Any, state: str) -> list[int]:
        """Have something become of a map; return the numbers that are a stranger's then."""
        from probate.system import MapDescriptor

        if state == "closed":
            native.close()
        elif state == "exported":
            self.undo.callback(memoryview(native).release)
        elif state != "fine" and (number := MapDescriptor(native).number) != -1:
            os.dup2(self.stranger, number, inheritable=False)
            self.undo.callback(os.close, number)
            return [number]
        return []

    def is_there(self, number: int) -> bool:
        """Whether the stranger has a number still."""
        try:
            return os.path.samestat(os.fstat(number), os.fstat(self.stranger))
        except OSError:
            return False


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.sampled_from(SORTS), st.sampled_from(STATES)), max_size=6))
def test_many_end_as_each_alone(
    manager: ProcessManager, maps: MmapManager, odd: list[tuple[str, str]]
) -> None:
    """The quick way for many is held against the slow one: same outcomes, no stranger harmed."""
    came_of_it = []
    for at_once in (True, False):
        scene = Scene(maps)
        owners = [manager.create_process("owner") for _ in (odd[:1] if at_once else odd)]
        owners = owners * len(odd) if at_once else owners
        natives, strangers = [], []
        for owner, (sort, state) in zip(owners, odd, strict=True):
            natives.append(scene.make(owner.pid, sort, owner.adopt))
            strangers += scene.change(natives[-1], state)
        results = [owner.terminate() for owner in dict.fromkeys(owners)]
        came_of_it.append(
            (
                [native.closed for native in natives],
                sum(result.stats.resources_freed for result in results),
                sorted(error.message for result in results for error in result.errors),
                [scene.is_there(number) for number in strangers],
            )
        )
        scene.undo.close()
        for owner in dict.fromkeys(owners):
            manager.orchestrator.cleanup_process(owner.pid, grace=0)

    many, alone = came_of_it
    assert many == alone
    assert all(many[3])
