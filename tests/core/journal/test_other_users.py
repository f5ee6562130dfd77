"""Two users: neither reads nor acts on what the other's journal says; root acts as that user."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import select
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attackers import STRANGER, new_folder
from children import exit_code_of_fork
from click.testing import CliRunner
from journal_hosts import PATIENCE
from journal_stores import dead_store, row_of

from probate import ResourceOrchestrator
from probate.cli.app import app
from probate.journal import path_identity
from probate.journal.folders import HEADER, KEPT, LOCK, host_folders, make_host_folder
from probate.journal.header import header_of_this_host
from probate.settlement import HostState, sweep
from probate.settlement.apart import call_apart
from probate.settlement.otheruser import become
from probate.settlement.settling import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

needs_root = pytest.mark.needs_root(reason="acts as other users")

#: Another one than the stranger.
SECOND = STRANGER - 1


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that all may enter."""
    with new_folder("/tmp") as folder:
        yield folder


@pytest.fixture
def home(place: Path) -> Path:
    """The stranger's."""
    home = place / "home"
    home.mkdir()
    os.chown(home, STRANGER, STRANGER)
    return home


def user(home: Path, uid: int = STRANGER) -> pwd.struct_passwd:
    return pwd.struct_passwd(("stranger", "x", uid, uid, "", str(home), "/bin/sh"))


@pytest.fixture(autouse=True)
def _known(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stranger has an entry, with that home; and our own settings are not used."""
    known = pwd.getpwnam
    monkeypatch.setattr(
        pwd, "getpwnam", lambda name: user(home) if name == "stranger" else known(name)
    )
    monkeypatch.delenv("PROBATE_STATE", raising=False)


def as_user(home: Path, work: Callable[[], object], uid: int = STRANGER) -> Any:
    """What `work` returns, by way of JSON, in a child that has become the stranger."""

    def become_and_work() -> object:
        become(user(home, uid))
        return work()

    return call_apart(become_and_work, PATIENCE)


def state_of(home: Path) -> Path:
    return home / ".local/state/probate"


def dead_store_of(home: Path, rows: Callable[[], list[dict[str, Any]]]) -> Path:
    """The store that a host of the stranger's has left, with rows that it can make."""
    return Path(as_user(home, lambda: str(dead_store(state_of(home), rows()))))


def swept(*options: str) -> Result:
    return CliRunner().invoke(app, ["sweep", "--user", "stranger", *options])


# -- neither the other's -----------------------------------------------------------


@needs_root
def test_a_store_is_closed_to_others(place: Path, home: Path) -> None:
    """A second user can neither look into it, nor lock, settle, forget or put anything there."""
    (home / "x").touch()
    os.chown(home / "x", STRANGER, STRANGER)
    store = dead_store_of(home, lambda: [row_of("files", path_identity(str(home / "x")))])

    def tried() -> list[str]:
        refused = []

        def attempt(name: str, act: Callable[[], object]) -> None:
            try:
                act()
            except PermissionError:
                refused.append(name)

        attempt("list", lambda: list(store.parent.iterdir()))
        for name in (HEADER, LOCK, "data.mdb"):
            attempt(name, (store / name).read_bytes)
        attempt("write", lambda: (store / KEPT).write_text("[]"))
        attempt("settle", lambda: settle(store))
        attempt("remove", lambda: shutil.rmtree(store))
        orchestrator = ResourceOrchestrator()
        [account] = sweep(orchestrator, str(store.parent))
        assert (account.state, account.rows) == (HostState.UNREADABLE, ())
        assert list(host_folders(str(store.parent))) == []
        return refused

    assert as_user(place, tried, SECOND) == [
        "list", HEADER, LOCK, "data.mdb", "write", "settle", "remove"
    ]  # fmt: skip
    assert stat_of_all(store) == {(STRANGER, 0o700), (STRANGER, 0o600)}
    assert (home / "x").exists()


def stat_of_all(store: Path) -> set[tuple[int, int]]:
    """Whose each thing is in a store, and who may use it."""
    found = [store, *store.rglob("*")]
    return {(each.stat().st_uid, each.stat().st_mode & 0o777) for each in found}


@needs_root
@pytest.mark.parametrize("uid", [0, STRANGER])
def test_a_place_that_another_has_taken_is_not_used(
    place: Path, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    """A squatter has the names: nothing of it is read, and a place of another name is made."""
    temporary = place / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    monkeypatch.setattr("probate.journal.folders._TEMPORARY", temporary)
    squatted = temporary / f"probate-{uid}-0"

    def squat() -> None:
        squatted.mkdir(0o700)
        dead_store(squatted, [])

    as_user(place, squat, SECOND)

    def made() -> list[str]:
        folder = make_host_folder(header_of_this_host())
        assert folder in list(host_folders())
        return [str(each) for each in host_folders() if each.is_relative_to(temporary)]

    # No place comes before those there; /run/user/0 may be this machine's.
    monkeypatch.setattr("probate.journal.folders._LOGINS", place / "nowhere")
    (folder,) = as_user(Path("/proc/nonexistent"), made, uid)
    assert not Path(folder).is_relative_to(squatted)


@needs_root
@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_place_that_another_can_swap_is_not_used(place: Path, mode: int) -> None:
    """In a folder of another's, or of everybody's: whose rows are read there, nobody could say."""
    above = place / "above"
    state = above / "state"
    state.mkdir(parents=True, mode=0o700)
    if mode == 0o755:
        os.chown(above, STRANGER, STRANGER)
    above.chmod(mode)

    with pytest.raises(OSError, match="put another in its place"):
        make_host_folder(header_of_this_host(), str(state))
    assert list(host_folders(str(state))) == []

    os.chown(above, 0, 0)
    above.chmod(0o1777)
    assert make_host_folder(header_of_this_host(), str(state)).exists()


@needs_root
def test_root_makes_nothing_in_a_home_that_is_another_s(
    place: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `sudo -E` and `su -m` leave it in the environment: the next place is taken."""
    (place / "tmp").mkdir(mode=0o700)
    monkeypatch.setattr("probate.journal.folders._LOGINS", place / "nowhere")
    monkeypatch.setattr("probate.journal.folders._TEMPORARY", place / "tmp")
    monkeypatch.setenv("HOME", str(home))

    folder = make_host_folder(header_of_this_host())

    assert folder.is_relative_to(place / "tmp")
    assert list(home.iterdir()) == []


# -- root, for a user --------------------------------------------------------------


@needs_root
def test_root_gives_back_what_a_user_s_host_has_left(home: Path) -> None:
    """It finds the user's folders, and says what it did; as JSON, too, and first on trial."""

    def rows() -> list[dict[str, Any]]:
        (home / "x").touch()
        return [row_of("files", path_identity(str(home / "x")), what="file x")]

    store = dead_store_of(home, rows)
    tried = swept("--dry-run")
    assert (tried.exit_code, "would be: 1 released" in tried.output) == (0, True)
    assert (home / "x").exists()

    done = swept("--json")
    assert done.exit_code == 0
    told = json.loads(done.output)
    assert told["totals"] == {"released": 1}
    assert told["hosts"][0]["store"] == str(store)
    assert list(home.iterdir()) == [home / ".local"]
    assert not store.exists()
    assert "nothing is left" in swept().output


@needs_root
def test_root_forgets_a_row_of_a_user_s(home: Path) -> None:
    """As that user, again; and says if there is none."""
    store = dead_store_of(home, lambda: [row_of("unheard-of", {})])
    assert swept().exit_code == 3

    row = f"{store.name}:1"
    assert swept("--forget", row).exit_code == 0
    assert not store.exists()
    again = swept("--forget", row)
    assert (again.exit_code, "no row" in again.output) == (1, True)


@needs_root
def test_a_user_s_rows_remove_nothing_that_the_user_could_not(place: Path, home: Path) -> None:
    """Rows made up to name what is root's: files, segments, queues, processes. All of it stays."""
    protected = place / "protected"
    protected.mkdir()
    (protected / "x").touch()
    segment = Path("/dev/shm") / f"probate-test-{secrets.token_hex(8)}"
    segment.touch(0o644)
    folder = place / "folder"
    folder.mkdir()
    (folder / "below").touch()
    paths = [protected / "x", segment, folder]
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            rows = [
                *(
                    row_of(kind, {**path_identity(str(path)), "uid": 0})
                    for kind, path in zip(("files", "memory", "files"), paths, strict=True)
                ),
                row_of("processes", made_up_of(process.pid)),
            ]
            dead_store_of(home, lambda: rows)

            told = swept("--json")
            (host,) = json.loads(told.output)["hosts"]
            assert told.exit_code == 3
            assert {row["outcome"] for row in host["rows"]} <= {"failed", "refused"}
            assert len(host["rows"]) == len(rows)
            assert all(path.exists() for path in [*paths, folder / "below"])
            assert process.poll() is None
            assert state_letter(process.pid) == "S"
        finally:
            process.kill()
            segment.unlink()


def made_up_of(os_pid: int) -> dict[str, Any]:
    """An identity by which a process would be ended as the leader of a tree."""
    fields = Path(f"/proc/{os_pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "uid": 0,
        "pid": os_pid,
        "start": int(fields[19]),
        "cgroup": None,
        "host_cgroup": None,
        "host_start": 0,
        "pid_namespace": Path("/proc/self/ns/pid").stat().st_ino,
    }


def state_letter(os_pid: int) -> str:
    return Path(f"/proc/{os_pid}/stat").read_text().rpartition(")")[2].split()[0]


@needs_root
def test_who_sweeps_for_a_user_has_nothing_of_root_s(home: Path) -> None:
    """No id, group, capability, variable or descriptor, and no way back."""

    def with_another_group() -> object:
        os.setgroups([0, 4])
        become(user(home))
        return look_at_myself()

    os.environ["PROBATE_TEST_SECRET"] = "root's"
    try:
        told = call_apart(with_another_group, PATIENCE)
    finally:
        del os.environ["PROBATE_TEST_SECRET"]

    assert told["Uid"] == told["Gid"] == " ".join([str(STRANGER)] * 4)
    assert told["Groups"] in {"", str(STRANGER)}
    assert {int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert told["environment"] == ["HOME", "LOGNAME", "PATH", "USER"]
    # The last is the look itself.
    assert told["descriptors"] == ["0", "1", "2", "3", "4"]
    assert told["back"] == "PermissionError"
    assert told["cwd"] == "/"


def look_at_myself() -> dict[str, Any]:
    """What the kernel says of this process."""
    status = Path("/proc/self/status").read_text()
    told: dict[str, Any] = {}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        told[name] = " ".join(value.split())
    told["environment"] = sorted(os.environ)
    told["descriptors"] = sorted(each.name for each in Path("/proc/self/fd").iterdir())
    told["cwd"] = str(Path.cwd())
    try:
        os.setresuid(0, 0, 0)
    except OSError as error:
        told["back"] = type(error).__name__
    return told


@needs_root
def test_only_root_sweeps_for_others(home: Path) -> None:
    """And only for users that there are: each a line, exit 2."""

    def tried() -> list[object]:
        result = CliRunner().invoke(app, ["sweep", "--user", "root"])
        return [result.exit_code, result.output]

    # This first: it imports what another user may be unable to read.
    result = CliRunner().invoke(app, ["sweep", "--user", "no-such-user"])
    assert (result.exit_code, "there is no user no-such-user" in result.output) == (2, True)

    code, text = as_user(home, tried)
    assert (code, "for root alone" in text) == (2, True), text


@needs_root
def test_a_user_who_holds_up_the_sweep_is_told_of(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By stopping the child, say: it is killed in the end; one line, exit 1."""
    dead_store_of(home, list)
    monkeypatch.setattr("probate.settlement.otheruser._ALLOWANCE", 0.5)

    def stopped(*_: object, **__: object) -> list[object]:
        os.kill(os.getpid(), signal.SIGSTOP)
        return []

    monkeypatch.setattr("probate.settlement.sweeping.sweep", stopped)
    result = swept()

    assert result.exit_code == 1
    assert "the sweep for stranger: did not end within" in result.output
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# -- calls apart -------------------------------------------------------------------


def test_a_call_apart_says_what_came_of_it() -> None:
    """A result, an error, a death by a signal, or none at all in time."""
    assert call_apart(lambda: {"a": [1, None]}, PATIENCE) == {"a": [1, None]}
    with pytest.raises(ChildProcessError, match=r"^ZeroDivisionError: division by zero$"):
        call_apart(lambda: 1 / 0, PATIENCE)
    with pytest.raises(ChildProcessError, match=r"^killed by SIGBUS$"):
        call_apart(lambda: os.kill(os.getpid(), signal.SIGBUS), PATIENCE)
    with pytest.raises(ChildProcessError, match=r"^ended with code 1$"):
        call_apart(object, PATIENCE)
    with pytest.raises(ChildProcessError, match=r"^did not end within 0 seconds$"):
        call_apart(lambda: select.select([], [], []), 0.1)
    with pytest.raises(ChildProcessError, match=r"^did not end within"):
        call_apart(lambda: "x" * (1 << 25), PATIENCE)


def test_a_call_apart_where_children_are_not_waited_for() -> None:
    """A host that ignores SIGCHLD, whose children the kernel reaps."""

    def child() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        assert call_apart(lambda: 1, PATIENCE) == 1
        with suppress(ChildProcessError):
            call_apart(lambda: os.kill(os.getpid(), signal.SIGKILL), PATIENCE)

    assert exit_code_of_fork(child) == 0


def test_a_host_that_cannot_be_settled_now_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as for want of descriptors: it is said, nothing is set aside, and the next goes on."""
    for _ in range(2):
        dead_store(tmp_path / "state", [row_of("unheard-of", {})])
    first, second = host_folders(str(tmp_path / "state"))
    fork = os.fork

    def none() -> int:
        monkeypatch.setattr(os, "fork", fork)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", none)
    found = sweep(ResourceOrchestrator(), str(tmp_path / "state"))

    assert [each.state for each in found] == [HostState.UNREADABLE, HostState.SETTLED]
    assert "cannot be settled now" in found[0].text
    assert first.exists()
    assert (second / KEPT).exists()
