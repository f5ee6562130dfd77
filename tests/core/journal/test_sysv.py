"""What a record tells of is told from all that has its key, its id or its namespace since."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any, get_args

import pytest
import sysv_ipc
from sysv_kernel import SORTS, create, has_id, ids_by_key, remove

from probate import Outcome, RefusedResourceError, ResourceRecord
from probate.journal import (
    SysvIdentity,
    SysvSort,
    ipc_namespace,
    reclaim_sysv,
    sysv_named,
    sysv_status,
    with_sysv_key,
)
from probate.journal import sysv as journal_sysv
from probate.journal.handles import boot_id, is_lasting_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator


def identity_of(native: Any) -> SysvIdentity:
    which = next(each for each in get_args(SysvSort) if isinstance(native, SORTS[each][0]))
    status = sysv_status(which, native.id)
    assert status is not None
    creator = status["cuid"], status["cgid"]
    return SysvIdentity(native.id, native.key, creator, status["ctime"])


def record_of(
    which: SysvSort,
    key: int,
    native: Any = None,
    *,
    is_random: bool = False,
    boot: str | None = None,
) -> ResourceRecord:
    """What the journal has of an object, made already or not, as whoever settles gets it."""
    named = sysv_named(which, "it", key, identity_of, is_random=is_random)
    identity = {"uid": os.geteuid(), "ipc_namespace": ipc_namespace(), **named.before}
    if native is not None:
        identity |= named.after(native)
    identity["boot"] = boot or boot_id()
    return ResourceRecord(kind="ipc", description="it", os_pid=1, identity=identity)


@pytest.fixture(params=get_args(SysvSort))
def which(request: pytest.FixtureRequest) -> SysvSort:
    """Each of the three sorts."""
    sort: SysvSort = request.param
    return sort


@pytest.fixture
def native(which: SysvSort) -> Iterator[Any]:
    """An object with a key, of nobody's; a segment is attached."""
    made = with_sysv_key(None, lambda key: create(which, key))
    yield made
    remove(which, made.id)


def detach(native: Any) -> None:
    if isinstance(native, sysv_ipc.SharedMemory) and native.attached:
        native.detach()


def test_what_was_made_is_removed_once(which: SysvSort, native: Any) -> None:
    """A dry run says so, and does nothing."""
    detach(native)
    record = record_of(which, native.key, native)

    assert reclaim_sysv(record, dry_run=True) is Outcome.RELEASED
    assert has_id(which, native.id)
    assert reclaim_sysv(record, dry_run=False) is Outcome.RELEASED
    assert not has_id(which, native.id)
    assert reclaim_sysv(record, dry_run=False) is Outcome.ALREADY_GONE


def test_a_successor_of_the_key_is_left_alone(which: SysvSort, native: Any) -> None:
    """Removed, and made anew under its key: by another id."""
    detach(native)
    record = record_of(which, native.key, native)
    native.remove()
    successor = create(which, native.key)
    detach(successor)
    try:
        assert reclaim_sysv(record, dry_run=False) is Outcome.ALREADY_GONE
        assert has_id(which, successor.id)
    finally:
        remove(which, successor.id)


def test_a_change_of_permissions_does_not_hide_it(which: SysvSort, native: Any) -> None:
    """IPC_SET is a later ctime, as SETVAL is."""
    detach(native)
    record = record_of(which, native.key, native)
    changed = {**record.identity, "ctime": record.identity["ctime"] - 10}
    native.mode = 0o640

    if not is_lasting_namespace(ipc_namespace()):
        pytest.skip("this kernel gives namespaces no names that last")

    changed_record = record.model_copy(update={"identity": changed})
    assert reclaim_sysv(changed_record, dry_run=False) is Outcome.RELEASED
    assert not has_id(which, native.id)


def test_where_namespaces_have_no_lasting_names_a_change_is_refused(
    which: SysvSort, native: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later namespace begins with the same ids, and may have the inode of the one before."""
    detach(native)
    monkeypatch.setattr(journal_sysv, "ipc_namespace", lambda: "inode:4026532177")
    record = record_of(which, native.key, native)
    record.identity["ipc_namespace"] = "inode:4026532177"  # type: ignore[index]  # a dict
    same = reclaim_sysv(record, dry_run=True)
    record.identity["ctime"] -= 10  # type: ignore[index]  # a dict

    assert same is Outcome.RELEASED
    with pytest.raises(RefusedResourceError, match="changed since"):
        reclaim_sysv(record, dry_run=False)
    assert has_id(which, native.id)


def test_another_boot_has_nothing_of_it(which: SysvSort, native: Any) -> None:
    """Whatever has its id and key by now."""
    detach(native)
    record = record_of(which, native.key, native, boot="another")

    assert reclaim_sysv(record, dry_run=False) is Outcome.ALREADY_GONE
    assert has_id(which, native.id)


@pytest.mark.needs_root(reason="gives things to another user, and may remove them still")
def test_another_user_s_is_refused(which: SysvSort, native: Any) -> None:
    """Given to somebody by IPC_SET: it is theirs now, though we made it."""
    detach(native)
    record = record_of(which, native.key, native)
    native.uid = 65534

    with pytest.raises(RefusedResourceError, match="belongs to user 65534"):
        reclaim_sysv(record, dry_run=False)
    assert has_id(which, native.id)


def test_an_intent_with_a_random_key_is_found_by_it(which: SysvSort, native: Any) -> None:
    """Its owner died between the call and the note of its id."""
    detach(native)
    record = record_of(which, native.key, is_random=True)

    assert reclaim_sysv(record, dry_run=False) is Outcome.RELEASED
    assert not has_id(which, native.id)
    assert reclaim_sysv(record, dry_run=False) is Outcome.ALREADY_GONE


def test_an_intent_with_a_key_of_everybody_s_is_refused(which: SysvSort, native: Any) -> None:
    """Whether the key was taken before, nobody knows; there may be nothing of it, of course."""
    detach(native)
    record = record_of(which, native.key)

    with pytest.raises(RefusedResourceError, match="the key was not its own"):
        reclaim_sysv(record, dry_run=False)
    assert has_id(which, native.id)

    native.remove()

    assert reclaim_sysv(record, dry_run=False) is Outcome.ALREADY_GONE


def test_a_private_one_is_found_by_its_id_alone(which: SysvSort) -> None:
    """Of an intent with IPC_PRIVATE nothing can be found, and nothing is."""
    native = create(which, sysv_ipc.IPC_PRIVATE)
    detach(native)
    try:
        with pytest.raises(RefusedResourceError, match="IPC_PRIVATE"):
            reclaim_sysv(record_of(which, 0), dry_run=False)
        record = record_of(which, 0, native)
        changed = {**record.identity, "ctime": record.identity["ctime"] - 10}
        with pytest.raises(RefusedResourceError, match="changed since"):
            reclaim_sysv(record.model_copy(update={"identity": changed}), dry_run=False)
        assert has_id(which, native.id)

        assert reclaim_sysv(record, dry_run=False) is Outcome.RELEASED
        assert not has_id(which, native.id)
    finally:
        remove(which, native.id)


def test_a_segment_that_others_have_attached_is_refused() -> None:
    """And found removed already, once it goes with the last of them."""
    native = with_sysv_key(None, lambda key: create("shm", key))
    record = record_of("shm", native.key, native)
    try:
        with pytest.raises(RefusedResourceError, match="still attached by 1"):
            reclaim_sysv(record, dry_run=False)
        assert has_id("shm", native.id)

        native.remove()

        assert reclaim_sysv(record, dry_run=False) is Outcome.ALREADY_GONE
    finally:
        native.detach()
        remove("shm", native.id)


def test_a_key_is_drawn_until_one_is_free(which: SysvSort, native: Any) -> None:
    """One that is asked for is taken as it is."""
    detach(native)
    tried: list[int] = []

    def make(key: int) -> Any:
        tried.append(key)
        if len(tried) < 3:
            # Taken, says the kernel, as of the drawn one by chance.
            raise FileExistsError
        return create(which, key)

    made = with_sysv_key(None, make)
    detach(made)
    made.remove()

    assert len(set(tried)) == 3
    assert all(0 < key < 1 << 31 for key in tried)
    assert made.key == tried[-1]
    with pytest.raises(FileExistsError):
        with_sysv_key(native.key, lambda _: make_taken())
    assert ids_by_key(which)[native.key] == native.id


def make_taken() -> None:
    raise FileExistsError


#: In an IPC namespace of its own, as an ordinary user in a user namespace.
_APART = """
    import ctypes, json, sys
    from pathlib import Path
    from probate import RefusedResourceError, ResourceRecord
    from probate.journal import ipc_namespace, reclaim_sysv

    CLONE_NEWIPC, CLONE_NEWUSER = 0x08000000, 0x10000000
    unshare = ctypes.CDLL(None).unshare
    if unshare(CLONE_NEWIPC) and unshare(CLONE_NEWIPC | CLONE_NEWUSER):
        sys.exit("skip: no IPC namespace of its own is to be had here")
    record = ResourceRecord.model_validate_json(sys.argv[1])
"""


def run_apart(source: str, record: ResourceRecord) -> str:
    """What a program says, in an IPC namespace of its own, of a `record`."""
    program = textwrap.dedent(_APART) + textwrap.dedent(source)
    done = subprocess.run(
        [sys.executable, "-c", program, record.model_dump_json()],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.stderr.startswith("skip: "):
        pytest.skip(done.stderr)

    assert done.stderr == ""
    return done.stdout


def test_another_namespace_s_is_refused(which: SysvSort, native: Any) -> None:
    """From there nobody sees it, so that nobody can say that it is gone."""
    detach(native)
    source = """
    try:
        print(reclaim_sysv(record, False))
    except RefusedResourceError as error:
        print(error)
    """

    assert "another IPC namespace" in run_apart(source, record_of(which, native.key, native))
    assert has_id(which, native.id)


def test_a_successor_of_the_id_is_left_alone(which: SysvSort, native: Any) -> None:
    """Ids come round; in a namespace of its own, a process may choose the next one."""
    detach(native)
    source = """
    import sysv_ipc
    which, key = record.identity["which"], record.identity["key"]
    of = {
        "msg": sysv_ipc.MessageQueue, "sem": sysv_ipc.Semaphore, "shm": sysv_ipc.SharedMemory
    }[which]
    next_id = Path(f"/proc/sys/kernel/{which}_next_id")
    try:
        next_id.write_text("70000")
    except OSError as error:
        sys.exit(f"skip: the next id cannot be chosen here: {error}")
    options = {"size": 1} if which == "shm" else {}
    made = of(key + 1 if key < (1 << 31) - 1 else 1, sysv_ipc.IPC_CREX, **options)
    if which == "shm":
        made.detach()
    assert made.id == 70000
    fields = Path(f"/proc/sysvipc/{which}").read_text().splitlines()
    status = dict(zip(fields[0].split(), fields[1].split()))
    identity = {
        **record.identity, "ipc_namespace": ipc_namespace(), "id": made.id,
        "uid": int(status["cuid"]), "gid": int(status["cgid"]), "ctime": int(status["ctime"]),
    }
    found = [
        reclaim_sysv(record.model_copy(update={"identity": {**identity, "key": each}}), True)
        for each in (key, made.key)
    ]
    print(*map(str, found), sep=", ")
    """

    said = run_apart(source, record_of(which, native.key, native))

    assert said == "already gone, released\n"
