"""Root gives things back in folders that another user rearranges all the time."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from attackers import (
    STRANGER,
    TRIES,
    Attacker,
    ext4_folder,
    forget_program,
    names_in,
    new_folder,
)
from children import exit_code_of_fork
from journal_stores import dead_store, row_of
from mount_namespace import enter_mount_namespace

from probate import Outcome, RefusedResourceError, ResourceOrchestrator, ResourceRecord
from probate.journal import file_handle, reclaim_path
from probate.settlement.settling import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Tell = Callable[..., None]

pytestmark = [
    pytest.mark.needs_root(reason="acts for root, against another user"),
    pytest.mark.timeout(900),
]

_NEW: Final = os.O_CREAT | os.O_EXCL | os.O_RDWR

#: Seconds in which a careless cleaner has fallen for an attack, and any has met with one.
_UNTIL_FALLEN: Final = 60.0


@pytest.fixture(scope="module", autouse=True)
def _attackers() -> Iterator[None]:
    yield
    forget_program()


@pytest.fixture(scope="module")
def ext4() -> Iterator[Path]:
    with ext4_folder() as folder:
        yield folder


@pytest.fixture
def place(ext4: Path) -> Iterator[Path]:
    """A folder on ext4, which gives inode numbers again at once."""
    with new_folder(str(ext4)) as folder:
        yield folder


@pytest.fixture(params=["ext4", "tmpfs"])
def either(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder on ext4, and one on tmpfs."""
    on = request.getfixturevalue("ext4") if request.param == "ext4" else "/dev/shm"
    with new_folder(str(on)) as folder:
        yield folder


def identity_of(path: Path, folder: int, fd: int) -> dict[str, Any]:
    """What a journal has of our file, in a folder that was where it is said to be."""
    return {
        "path": str(path),
        "folder": file_handle(folder),
        "handle": file_handle(fd),
        "uid": os.geteuid(),
    }


def record_of(identity: dict[str, Any]) -> ResourceRecord:
    return ResourceRecord(kind="files", description="x", os_pid=1, identity=identity)


def outcome_of(identity: dict[str, Any]) -> str:
    """What the cleaner does, in words."""
    try:
        return str(reclaim_path(record_of(identity), dry_run=False))
    except RefusedResourceError as error:
        return str(error)
    except OSError as error:
        return str(error.strerror)


def careless_outcome_of(identity: dict[str, Any]) -> str:
    """What a cleaner does that compares device and inode, and unlinks the path then."""
    with suppress(OSError):
        status = os.lstat(identity["path"])
        if (status.st_dev, status.st_ino) == identity["number"]:
            Path(identity["path"]).unlink()
            return "released"
    return "refused"


class Ground:
    """A folder of the stranger's with our file in it; beside it what is protected."""

    def __init__(self, place: Path, *, is_hard: bool = False) -> None:
        self.precious = place / "protected" / "x"
        self.precious.parent.mkdir(0o755)
        self.theirs = place / "theirs"
        self.folder = self.theirs / "d"
        for each in (self.theirs, self.folder):
            each.mkdir()
            os.chown(each, STRANGER, STRANGER)
        self.fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        self._is_hard = is_hard
        self.protect()

    def protect(self) -> None:
        """Put the protected file where it is to stay, under one name, or two."""
        self.precious.touch()
        if self._is_hard:
            with suppress(FileNotFoundError):
                os.unlink("link", dir_fd=self.fd)
            os.link(self.precious, "link", dst_dir_fd=self.fd)
        self._status = self.precious.stat()

    def is_whole(self) -> bool:
        """Whether it is there still, under as many names."""
        with suppress(FileNotFoundError):
            status = self.precious.stat()
            return (status.st_ino, status.st_nlink) == (
                self._status.st_ino,
                self._status.st_nlink,
            )
        return False

    def make(self) -> dict[str, Any]:
        """Make our file, whatever its folder is called by now, by the name that is free."""
        try:
            fd = os.open("x", _NEW, 0o600, dir_fd=self.fd)
        except FileExistsError:
            fd = os.open("link", _NEW, 0o600, dir_fd=self.fd)
        try:
            status = os.fstat(fd)
            identity = identity_of(self.folder / "x", self.fd, fd)
        finally:
            os.close(fd)
        return {**identity, "number": (status.st_dev, status.st_ino)}

    def attack(
        self,
        clean: Callable[[dict[str, Any]], str],
        is_enough: Callable[[Counter[str]], bool],
    ) -> Counter[str]:
        """Clean until it is enough; return what came of it, and how often harm was done."""
        outcomes = Counter[str]()
        identity = self.make()
        while not is_enough(outcomes):
            outcome = clean(identity)
            outcomes[outcome] += 1
            if not self.is_whole():
                outcomes["harmed"] += 1
                self.protect()
            if outcome == "released":
                identity = self.make()
        return outcomes


def swapped_parent(place: Path) -> tuple[Ground, Attacker]:
    """The folder, for a link to the protected one."""
    ground = Ground(place)
    (ground.theirs / "l").symlink_to(ground.precious.parent)
    return ground, Attacker(ground.theirs, "exchange", "d", "l")


def swapped_leaf(place: Path) -> tuple[Ground, Attacker]:
    """Our file, for a link to the protected one."""
    ground = Ground(place)
    (ground.folder / "link").symlink_to(ground.precious)
    return ground, Attacker(ground.folder, "exchange", "x", "link")


def swapped_hard(place: Path) -> tuple[Ground, Attacker]:
    """Our file, for a second name of the protected one."""
    ground = Ground(place, is_hard=True)
    return ground, Attacker(ground.folder, "exchange", "x", "link")


def has_tried(outcomes: Counter[str]) -> bool:
    """Whether as many tries as are wanted came as far as the file itself."""
    reached = sum(count for word, count in outcomes.items() if not word.startswith("a link is"))
    return reached - outcomes["harmed"] >= TRIES


@pytest.mark.parametrize("swapped", [swapped_parent, swapped_leaf, swapped_hard])
def test_what_is_swapped_between_check_and_act(
    place: Path, swapped: Callable[[Path], tuple[Ground, Attacker]], tell: Tell
) -> None:
    """Nothing but our file is removed, and that is at times; no trace of a quarantine stays."""
    tell(withstands(*swapped(place)))


def test_what_is_mounted_between_check_and_act(place: Path) -> None:
    """Over the folder that our file is in, by root, who alone may mount: in a namespace apart."""

    def child() -> None:
        enter_mount_namespace()
        ground = Ground(place)
        words = ("mount", str(ground.precious.parent), "d")
        withstands(ground, Attacker(ground.theirs, *words, as_root=True))

    assert exit_code_of_fork(child) == 0


def withstands(ground: Ground, attacker: Attacker) -> Counter[str]:
    """The cleaner does, as often as is wanted."""
    over = time.monotonic() + _UNTIL_FALLEN

    def is_enough(outcomes: Counter[str]) -> bool:
        is_mixed = min(outcomes["released"], outcomes.total() - outcomes["released"]) > 0
        return has_tried(outcomes) and (is_mixed or time.monotonic() > over)

    with attacker:
        outcomes = ground.attack(outcome_of, is_enough)
        assert attacker.is_alive()

    assert outcomes["harmed"] == 0, outcomes
    assert 0 < outcomes["released"] < outcomes.total(), outcomes
    assert [name for name in names_in(ground.fd) if name.startswith(".probate-")] == []
    return outcomes


@pytest.mark.parametrize("swapped", [swapped_parent, swapped_hard])
def test_a_careless_cleaner_falls_for_it(
    place: Path, swapped: Callable[[Path], tuple[Ground, Attacker]]
) -> None:
    """So that the attackers are what they seem."""
    over = time.monotonic() + _UNTIL_FALLEN
    ground, attacker = swapped(place)
    with attacker:
        outcomes = ground.attack(
            careless_outcome_of, lambda so_far: so_far["harmed"] > 0 or time.monotonic() > over
        )

    assert outcomes["harmed"] == 1, outcomes


def test_a_successor_with_the_same_inode_number_is_left_alone(either: Path) -> None:
    """Of each of many, one after another; on ext4 they all have the number of the first."""
    path = either / "x"
    folder = os.open(either, os.O_PATH)
    same = 0
    for _ in range(TRIES):
        fd = os.open(path, _NEW, 0o600)
        identity, number = identity_of(path, folder, fd), os.fstat(fd).st_ino
        os.close(fd)
        path.unlink()
        path.write_text("theirs")
        same += path.stat().st_ino == number
        assert outcome_of(identity) == "already gone"
        assert path.read_text() == "theirs"
        path.unlink()
    os.close(folder)

    if either.is_relative_to("/dev/shm"):
        return
    assert same > TRIES // 2


def test_a_successor_that_comes_between_check_and_act_is_left_alone(
    either: Path, tell: Tell
) -> None:
    """A program of our own puts a file of its own in its place: it is there, by its name, after."""
    path = either / "x"
    folder = os.open(either, os.O_PATH)
    fates, outcomes = Counter[str](), Counter[str]()
    over = time.monotonic() + _UNTIL_FALLEN
    with Attacker(either, "replace", "x", as_root=True) as successor:
        while outcomes.total() < max(TRIES // 5, 300) or (
            min(outcomes["released"], outcomes["already gone"]) <= 10 and time.monotonic() < over
        ):
            fd = os.open(path, _NEW, 0o600)
            identity = identity_of(path, folder, fd)
            os.close(fd)
            # Both look at the clock by then, and one begins as the other is in the midst of it.
            moment = time.monotonic_ns() + 300_000
            successor.say(moment)
            moment -= random.randrange(200_000)
            while time.monotonic_ns() < moment:
                pass
            outcomes[outcome_of(identity)] += 1
            assert successor.hear() == "r"
            successor.say("and?")
            fates[successor.hear()] += 1
    os.close(folder)
    tell(fates, outcomes)

    assert set(fates) == {"kept"}
    assert min(outcomes["released"], outcomes["already gone"]) > 10, outcomes
    assert list(either.iterdir()) == []


def test_who_takes_the_name_when_it_was_given_back_keeps_it(either: Path, tell: Tell) -> None:
    """In a folder that all may write to: released by us, and the row is there still."""
    either.chmod(0o1777)
    path = either / "x"
    folder = os.open(either, os.O_PATH)
    fates, outcomes = Counter[str](), Counter[str]()
    with Attacker(either, "take", "x") as squatter:
        for _ in range(TRIES):
            fd = os.open(path, _NEW, 0o600)
            identity = identity_of(path, folder, fd)
            os.close(fd)
            squatter.say(0)
            path.unlink()
            while (outcome := outcome_of(identity)) == "already gone":
                if path.exists():
                    break
            outcomes[outcome] += 1
            assert squatter.hear() == "r"
            squatter.say("and?")
            fates[squatter.hear()] += 1
    os.close(folder)
    tell(fates, outcomes)

    assert fates == {"kept": TRIES}
    assert outcomes[f"it belongs to user {STRANGER}"] > 0


def test_a_tree_is_removed_through_no_link(place: Path, tell: Tell) -> None:
    """A folder in it, which all may write to, is swapped for a link while it is emptied."""
    protected = place / "protected"
    (protected / "below").mkdir(parents=True)
    precious = [protected / "x", protected / "below" / "x"]
    for each in precious:
        each.touch()
    tree = place / "t"
    folder = os.open(place, os.O_PATH)
    outcomes = Counter[str]()
    over = time.monotonic() + _UNTIL_FALLEN
    with Attacker(place, "exchange", "t/s", "t/l") as attacker:
        while outcomes.total() < TRIES or (len(outcomes) == 1 and time.monotonic() < over):
            tree.mkdir()
            fd = os.open(tree, os.O_RDONLY)
            identity = identity_of(tree, folder, fd)
            os.close(fd)
            os.link(precious[0], tree / "hard")
            (tree / "s" / "below").mkdir(parents=True)
            (tree / "s" / "below" / "x").touch()
            (tree / "l").symlink_to(protected)
            tree.chmod(0o777)
            while tree.exists():
                outcomes[outcome_of(identity)] += 1
                assert all(each.exists() for each in precious)
        assert attacker.is_alive()
    os.close(folder)

    tell(outcomes)

    assert outcomes["released"] > 0
    assert len(outcomes) > 1, "nothing was ever swapped"


def test_a_whole_settlement_withstands_it(place: Path, tell: Tell) -> None:
    """Of a host that has left hundreds of files: none but these are removed."""
    ground = Ground(place)
    names = [f"x{number}" for number in range(500)]
    for name in names:
        (ground.precious.parent / name).touch()
    (ground.theirs / "l").symlink_to(ground.precious.parent)
    state = place / "state"
    orchestrator = ResourceOrchestrator().discover(only=["files"])
    reached = 0
    while reached < TRIES:
        rows = []
        for name in names:
            fd = os.open(name, _NEW, 0o600, dir_fd=ground.fd)
            rows.append(row_of("files", identity_of(ground.folder / name, ground.fd, fd)))
            os.close(fd)
        store = dead_store(state, rows)
        with Attacker(ground.theirs, "exchange", "d", "l"):
            while store.exists():
                account = settle(store, orchestrator)
                assert {row.outcome for row in account.rows} <= {Outcome.RELEASED, Outcome.REFUSED}
                reached += len(account.rows) - len(account.kept)

        assert names_in(ground.fd) == []
        assert {each.name for each in ground.precious.parent.iterdir()} == {"x", *names}
    tell(f"{reached} files released")
