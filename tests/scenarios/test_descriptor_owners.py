"""A descriptor number has one owner, whatever its kind, and whoever's it was before."""

# ruff: noqa: SIM115  whoever adopts a file here closes it

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import socket
import socketserver
import tempfile
from multiprocessing import Pipe
from multiprocessing.connection import Connection, Listener
from typing import TYPE_CHECKING, Any, Final

import pytest
from files_kernel import is_open
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from probate import AlreadyOwnedError, Outcome, ProcessManager, ResourceOrchestrator
from probate.ownership.descriptors import DESCRIPTORS
from probate.system import MapDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from probate import Process

KINDS: Final = ["sockets", "files", "ipc", "mmap", "rings", "memory", "callbacks"]


def make_manager() -> ProcessManager:
    orchestrator = ResourceOrchestrator().discover(only=KINDS)
    return ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0).build()


@pytest.fixture
def manager() -> Iterator[ProcessManager]:
    with make_manager() as made:
        yield made


def numbers_of(thing: Any) -> list[int]:
    """The numbers that a thing closes at its end."""
    if isinstance(thing, int):
        return [thing]
    if isinstance(thing, mmap.mmap):
        return [MapDescriptor(thing).number]
    return list(thing.filenos()) if hasattr(thing, "filenos") else [thing.fileno()]


def file_map() -> mmap.mmap:
    with tempfile.TemporaryFile() as file:
        file.truncate(1)
        return mmap.mmap(file.fileno(), 1)


def connection() -> Any:
    ours, theirs = Pipe()
    theirs.close()
    return ours


def write_end() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


#: What is made elsewhere and adopted, and the kind that takes it.
SORTS: Final[dict[str, tuple[Callable[[], Any], str]]] = {
    "socket": (lambda: socket.socket(type=socket.SOCK_DGRAM), "sockets"),
    "listener": (lambda: socket.create_server(("127.0.0.1", 0)), "sockets"),
    "connection": (connection, "ipc"),
    "file": (lambda: open(os.devnull, "rb"), "files"),
    "unbuffered file": (lambda: open(os.devnull, "rb", buffering=0), "files"),
    "temporary file": (tempfile.NamedTemporaryFile, "files"),
    "number of a pipe": (write_end, "files"),
    "number of an eventfd": (lambda: os.eventfd(0), "files"),
    "number of /dev/null": (lambda: os.open(os.devnull, os.O_RDONLY), "files"),
    "map of a file": (file_map, "mmap"),
}


def as_it_is(process: Process, thing: Any) -> None:
    process.adopt(thing)


def as_a_number(process: Process, thing: Any) -> None:
    process.adopt(numbers_of(thing)[0])


def as_a_file_over_its_number(process: Process, thing: Any) -> None:
    process.adopt(open(numbers_of(thing)[0], "rb", closefd=False))


def to_be_closed_by_number(process: Process, thing: Any) -> None:
    process.adopt(numbers_of(thing)[0], release=os.close)


def as_a_connection_over_its_number(process: Process, thing: Any) -> None:
    over = Connection(numbers_of(thing)[0])
    try:
        process.adopt(over)
    finally:
        # It is not to close the number when it is collected.
        vars(over)["_handle"] = None


WAYS: Final = [
    as_it_is,
    as_a_number,
    as_a_file_over_its_number,
    as_a_connection_over_its_number,
    to_be_closed_by_number,
]


@pytest.mark.parametrize("is_elsewhere", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sort", SORTS)
def test_whoever_adopts_a_number_that_has_an_owner_is_told_whose_it_is(
    manager: ProcessManager, sort: str, way: Callable[[Process, Any], None], is_elsewhere: bool
) -> None:
    """python-manhole#58, cpython#75163, locket#14: by two names it had two owners."""
    make, kind = SORTS[sort]
    thing = make()
    owner = manager.create_process("owner")
    owner.adopt(thing)
    with (
        make_manager() if is_elsewhere else contextlib.nullcontext(manager) as theirs,
        pytest.raises(AlreadyOwnedError) as caught,
    ):
        way(theirs.create_process("other"), thing)

    assert (caught.value.owner, caught.value.owned_as) == (owner.pid, kind)
    assert ("of another orchestrator" in str(caught.value)) == is_elsewhere
    assert owner.terminate().stats.resources_freed == 1


@pytest.mark.parametrize("make", ["zerocopy", "iouring"])
def test_the_numbers_of_rings_are_theirs(manager: ProcessManager, make: str) -> None:
    """All three of a ring between processes; that of an io_uring."""
    owner, other = manager.create_process("owner"), manager.create_process("other")
    ring = getattr(manager.orchestrator["rings"], make).create_ring(owner.pid, **SIZES[make])
    for number in numbers_of(ring):
        with pytest.raises(AlreadyOwnedError, match=f"process {owner.pid}, as one of its rings"):
            other.adopt(number)


#: What makes a small one.
SIZES: Final[dict[str, dict[str, int]]] = {"zerocopy": {"slots": 1}, "iouring": {"entries": 1}}


def test_what_is_made_has_its_number_whoever_had_it_before(manager: ProcessManager) -> None:
    """The kernel has given it out: whoever had it has it no more, though it is the same file."""
    first, second = manager.create_process("first"), manager.create_process("second")
    file = open(os.devnull, "rb", buffering=0)
    first.adopt(file)
    os.close(number := file.fileno())

    assert manager.orchestrator["files"].manager.open_fd(second.pid, os.devnull) == number
    assert first.terminate().stats.resources_freed == 0
    assert is_open(number)
    assert second.terminate().stats.resources_freed == 1


def test_a_file_that_its_user_has_closed_owns_no_number(manager: ProcessManager) -> None:
    """The next with the number may have opened the very same file: that one may be adopted."""
    first, second = manager.create_process("first"), manager.create_process("second")
    file = open(os.devnull, "rb")
    first.adopt(file)
    number = file.fileno()
    file.close()

    assert os.open(os.devnull, os.O_RDONLY) == number

    second.adopt(number)

    assert first.terminate().stats.resources_freed == 0
    assert second.terminate().stats.resources_freed == 1


def test_a_manager_that_is_gone_owns_nothing() -> None:
    """Not even where nobody has closed it: what it had may be owned by the next."""
    number = os.eventfd(0)
    table = ResourceOrchestrator().discover(only=["files"])
    table.adopt(1, number)
    del table
    gc.collect()
    with make_manager() as manager:
        process = manager.create_process("next")
        process.adopt(number)

        assert process.terminate().stats.resources_freed == 1


def test_a_forked_child_owns_no_numbers(manager: ProcessManager) -> None:
    """It may adopt what it has inherited, and its end is its own."""
    number = os.eventfd(0)
    owner = manager.create_process("owner")
    owner.adopt(number)
    if (child := os.fork()) == 0:
        try:
            with make_manager() as theirs:
                process = theirs.create_process("child")
                process.adopt(number)
                freed = process.terminate().stats.resources_freed
            os._exit(0 if freed == 1 and not is_open(number) else 1)
        finally:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_open(number)
    assert owner.terminate().stats.resources_freed == 1


# -- strangers -------------------------------------------------------------------


def managers_of(manager: ProcessManager) -> dict[str, Any]:
    return {kind: manager.orchestrator[kind].manager for kind in KINDS if kind != "callbacks"}


def thread_server() -> Any:
    return socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler)


#: Makes something of which a process owns numbers, some of them shown to nobody.
MADE: Final[dict[str, Callable[[dict[str, Any], int, Path], Any]]] = {
    "listener": lambda of, pid, _: of["sockets"].listen_tcp(pid, ("127.0.0.1", 0)),
    "unix listener": lambda of, pid, path: of["sockets"].listen_unix(pid, path / "socket"),
    "server": lambda of, pid, _: adopted(of["sockets"], pid, thread_server()),
    "number": lambda of, pid, _: of["files"].memfd(pid),
    "file": lambda of, pid, path: of["files"].open(pid, path / "file", "w"),
    "temporary file": lambda of, pid, path: of["files"].temporary_file(pid, directory=path),
    "temporary folder": lambda of, pid, path: of["files"].temporary_directory(pid, directory=path),
    "fifo": lambda of, pid, path: of["files"].mkfifo(pid, path / "fifo"),
    "pipe": lambda of, pid, _: of["ipc"].pipe(pid),
    "connections": lambda of, pid, _: of["ipc"].connection_pair(pid),
    "queue": lambda of, pid, _: of["ipc"].create_posix_queue(
        pid, max_messages=1, max_message_size=8
    ),
    "unix connections": lambda of, pid, path: adopted(of["ipc"], pid, Listener(str(path / "unix"))),
    "map of a file": lambda of, pid, _: adopted(of["mmap"], pid, file_map()),
    "temporary map": lambda of, pid, path: of["mmap"].map_temporary(pid, 1, directory=path),
    "ring": lambda of, pid, _: of["rings"].create_ring(pid, slots=1),
    "shared memory": lambda of, pid, _: of["memory"].create_shared_memory(pid, size=1),
}


def adopted(of: Any, pid: int, thing: Any) -> Any:
    of.adopt(pid, thing)
    return thing


def owned_numbers(process: Process) -> list[int]:
    claims = list(DESCRIPTORS._claims.values())
    return sorted(claim.descriptor.number for claim in claims if claim.pid == process.pid)


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("what", MADE)
def test_whichever_number_is_a_strangers_by_now_is_left_alone(
    manager: ProcessManager, tmp_path: Path, what: str, is_folder: bool
) -> None:
    """python-manhole#58: each is compared right before it is closed, unlinked or opened anew."""
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "kept").write_text("kept")
    index = 0
    while True:
        process = manager.create_process("poisoned")
        folder = tmp_path / str(index)
        folder.mkdir()
        made: Any = MADE[what](managers_of(manager), process.pid, folder)
        numbers = owned_numbers(process)
        if index == len(numbers):
            break
        fd = os.open(stranger if is_folder else stranger / "kept", os.O_RDONLY)
        status = os.fstat(fd)
        os.dup2(fd, numbers[index], inheritable=False)
        os.close(fd)

        process.terminate()
        del made
        gc.collect()

        assert os.path.samestat(os.fstat(numbers[index]), status)
        assert (stranger / "kept").read_text() == "kept"
        os.close(numbers[index])
        index += 1

    assert index
    assert process.terminate().is_success


# -- any sequence ------------------------------------------------------------------


class Thing:
    """Something with a number; who owns it, under which id, and what became of it."""

    def __init__(self, sort: str, native: Any = None) -> None:
        make, self.kind = SORTS[sort]
        self.native = make() if native is None else native
        self.number = numbers_of(self.native)[0]
        self.status = os.fstat(self.number)
        self.owner: Process | None = None
        self.resource_id: Any = None
        self.owned_as = ""
        #: Whether its number is another's by now.
        self.is_lost = False
        self.is_closed = False
        #: Whether it has a path, which is its own and goes all the same.
        self.has_path = sort == "temporary file"

    @property
    def is_gone(self) -> bool:
        """Whether there is nothing left of it to release."""
        return self.is_lost and not self.has_path


class AnySequence(RuleBasedStateMachine):
    """Numbers are adopted, handed on, given back, closed elsewhere, and come round."""

    processes: Bundle[Process] = Bundle("processes")
    things: Bundle[Thing] = Bundle("things")

    def __init__(self) -> None:
        super().__init__()
        self.managers = [make_manager(), make_manager()]
        self.manager_of: dict[Process, ProcessManager] = {}
        self.made: list[Thing] = []

    def teardown(self) -> None:
        for thing in self.made:
            if thing.owner is not None:
                thing.is_closed = not thing.is_lost
        for manager in self.managers:
            manager.close()
        for thing in self.made:
            thing.owner = None
        self.nobody_else_is_harmed()
        self.there_is_one_truth()
        for thing in self.made:
            if not thing.is_closed and not thing.is_lost:
                os.close(thing.native) if isinstance(thing.native, int) else thing.native.close()

    @rule(target=processes, which=st.integers(0, 1))
    def create(self, which: int) -> Process:
        made = self.managers[which].create_process("p")
        self.manager_of[made] = self.managers[which]
        return made

    @rule(target=things, sort=st.sampled_from(sorted(SORTS)))
    def make(self, sort: str) -> Thing:
        made = Thing(sort)
        self.made.append(made)
        return made

    @rule(process=processes, thing=things, by_function=st.booleans())
    def adopt(self, process: Process, thing: Thing, by_function: bool) -> None:
        if thing.is_closed or thing.is_lost or thing.owner is not None or process.result:
            return
        if by_function and isinstance(thing.native, int):
            thing.resource_id, thing.owned_as = process.adopt(thing.native, os.close), "callbacks"
        else:
            thing.resource_id, thing.owned_as = process.adopt(thing.native), thing.kind
        thing.owner = process

    @rule(process=processes, thing=things, way=st.sampled_from(WAYS))
    def adopt_what_has_an_owner(
        self, process: Process, thing: Thing, way: Callable[[Process, Any], None]
    ) -> None:
        if thing.owner is None or thing.is_lost or process.result:
            return
        if way is as_a_file_over_its_number and process is thing.owner:
            # It stands above a number, and goes with that.
            return
        with pytest.raises(AlreadyOwnedError) as caught:
            way(process, thing.native)

        assert (caught.value.owner, caught.value.owned_as) == (thing.owner.pid, thing.owned_as)

    @rule(target=things, thing=things)
    def close_elsewhere(self, thing: Thing) -> Any:
        """A stranger gets the number of what somebody owns, in one stroke."""
        if thing.owner is None or thing.is_lost:
            return multiple()
        stranger = os.memfd_create("stranger")
        os.dup2(stranger, thing.number, inheritable=False)
        os.close(stranger)
        thing.is_lost = True
        made = Thing("number of /dev/null", thing.number)
        self.made.append(made)
        return made

    @rule(thing=things)
    def give_back(self, thing: Thing) -> None:
        if thing.owner is None:
            return
        outcome = thing.owner.give_back(thing.resource_id)

        assert (outcome is Outcome.ALREADY_GONE) == thing.is_gone

        thing.owner, thing.is_closed = None, not thing.is_lost

    @rule(thing=things)
    def disown(self, thing: Thing) -> None:
        if thing.owner is not None and not thing.is_lost:
            thing.owner.disown(thing.resource_id)
            thing.owner = None

    @rule(thing=things, to=processes)
    def transfer(self, thing: Thing, to: Process) -> None:
        owner = thing.owner
        if owner is None or thing.owned_as == "callbacks" or to.result or thing.is_lost:
            return
        if self.manager_of[owner] is self.manager_of[to]:
            self.manager_of[to].orchestrator.transfer(owner.pid, thing.native, to.pid)
            thing.owner = to

    @rule(process=processes)
    def terminate(self, process: Process) -> None:
        owned = [each for each in self.made if each.owner is process]
        freed = process.terminate().stats.resources_freed

        assert freed == len([each for each in owned if not each.is_gone]) or not owned

        for each in owned:
            each.owner, each.is_closed = None, not each.is_lost

    @invariant()
    def nobody_else_is_harmed(self) -> None:
        for thing in self.made:
            if not thing.is_lost:
                assert is_open(thing.number) != thing.is_closed or self.has_successor(thing)
            if not thing.is_lost and not thing.is_closed:
                assert os.path.samestat(os.fstat(thing.number), thing.status)

    def has_successor(self, thing: Thing) -> bool:
        """Whether its number was given out anew."""
        return not os.path.samestat(os.fstat(thing.number), thing.status) or any(
            each is not thing and each.number == thing.number and not each.is_closed
            for each in self.made
        )

    @invariant()
    def there_is_one_truth(self) -> None:
        for thing in self.made:
            claim = DESCRIPTORS.find(thing.number)
            if thing.owner is not None and not thing.is_lost:
                assert claim is not None
                assert claim.resource_id == thing.resource_id
                assert claim.pid == thing.owner.pid
        plugins = [each for manager in self.managers for each in manager.orchestrator.values()]
        tables = [each.table for each in plugins]
        for claim in list(DESCRIPTORS._claims.values()):
            if (table := claim.table()) is not None and table in tables:
                assert table.owner_of_id(claim.resource_id, claim.pid) is not None


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
