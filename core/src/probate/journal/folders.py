"""Where stores are kept: one folder of this user's, and in it a folder for each host.

A host takes the first place that can be used; a sweep looks at all of them, so that one run by
cron finds what a login has made.
"""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from probate.errors import RefusedResourceError
from probate.system.tree import TreeRemoval

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: What the folder of a host is called, before what makes it unique.
PREFIX: Final = "host-"

#: And before it is whole; and how many seconds it stays so at most.
NEW_PREFIX: Final = "new-"
_MAKING: Final = 3600.0

#: And while it is removed: who is killed in the midst of that leaves none that seems whole.
_GONE_PREFIX: Final = "gone-"

#: What makes it unique, for glob: a user's own folder, named as the place for stores, may have a
#: `new-project` in it.
_NONCE: Final = "[0-9a-f]" * 16

#: The folders of hosts, for glob.
HOSTS: Final = f"{PREFIX}{_NONCE}"

#: In such a folder: who the host is; the lock of whoever settles; what could not be given back.
HEADER: Final = "host.json"
LOCK: Final = "lock"
KEPT: Final = "kept.json"

#: How many user ids there are, but for the last, which means none.
_ALL_IDS: Final = (1 << 32) - 1

#: The most bytes that are read of such a file of a host that may have written anything.
_MOST_BYTES: Final = 1 << 24


#: Where each user who is logged in has a folder (pam_systemd(8)), which is the system's to make.
_LOGINS: Final = Path("/run/user")

#: Where a place can be made under a name that nobody has taken before.
_TEMPORARY: Final = Path("/tmp")  # noqa: S108  checked before it is used


def candidates(where: str | None = None) -> Iterator[Path]:
    """Return the places for stores of this user, best first: `where`, if that is given."""
    uid = os.geteuid()
    if path := where or os.environ.get("PROBATE_STATE"):
        yield Path(path)
        return
    yield _LOGINS / f"{uid}/probate"
    with suppress(RuntimeError):
        yield Path.home() / ".local/state/probate"
    for place in sorted(_TEMPORARY.glob(f"probate-{uid}-*")):
        # Anybody may have made such a one.
        with suppress(OSError):
            check_private(place)
            yield place


def _new_candidates(where: str | None) -> Iterator[Path]:
    """Return the places in which one may be made, best first."""
    yield from candidates(where)
    if where is None and not os.environ.get("PROBATE_STATE"):
        yield _TEMPORARY / f"probate-{os.geteuid()}-{os.urandom(8).hex()}"


def check_private(path: Path) -> None:
    """Raise OSError unless a folder is this user's, closed to all others, and none can move it."""
    _check_above(path)
    fd = os.open(path, _FLAGS)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to user {status.st_uid}")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(f"others may enter {path}: chmod 700 it")
    finally:
        os.close(fd)


def _check_above(path: Path) -> None:
    """Raise OSError if others may put another in the place of a path, which need not be there."""
    trusted = {0, os.geteuid(), *_unmapped()}
    for above in path.resolve().parents:
        try:
            status = above.stat()
        except FileNotFoundError:
            continue
        if status.st_uid not in trusted:
            raise PermissionError(f"user {status.st_uid} may put another in its place, in {above}")
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise PermissionError(f"anybody may put another in its place: chmod o-w {above}")


def _unmapped() -> set[int]:
    """Return what root's things belong to, as it seems within a user namespace without root."""
    # First id inside, first outside, how many: user_namespaces(7).
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    if sum(int(line.split()[2]) for line in lines) >= _ALL_IDS:
        return set()
    return {int(Path("/proc/sys/kernel/overflowuid").read_text())}


def make_host_folder(header: object, where: str | None = None) -> Path:
    """Make a folder for the store of a new host, in `where` or the first place that will do.

    It has its header when it has its name: whoever sweeps sees whose it is.

    Raises OSError, which says what was wrong with each.
    """
    problems: list[str] = []
    for place in _new_candidates(where):
        try:
            # Before anything is made in what is another's.
            _check_above(place)
            place.mkdir(0o700, parents=not place.is_relative_to(_LOGINS), exist_ok=True)
            check_private(place)
            folder = _make_whole(place.resolve(), header)
        except OSError as error:
            problems.append(f"{place}: {error.strerror or error}")
        else:
            return folder
    raise OSError(
        f"no folder for the journal can be used ({'; '.join(problems)}); name one by "
        "PROBATE_STATE or with_journal(path)"
    )


def _make_whole(place: Path, header: object) -> Path:
    nonce = os.urandom(8).hex()
    new = place / f"{NEW_PREFIX}{nonce}"
    new.mkdir(0o700)
    try:
        (new / LOCK).touch(0o600)
        write_json(new / HEADER, header)
        return new.rename(place / f"{PREFIX}{nonce}")
    except BaseException:
        _remove(new)
        raise


def places(where: str | None = None) -> Iterator[Path]:
    """Return the folders that there are for stores of this user, and that nobody else may enter."""
    for place in candidates(where):
        with suppress(OSError):
            check_private(place)
            yield place


def unusable_places(where: str | None = None) -> Iterator[tuple[Path, str]]:
    """Return those that there may be stores in, but that are not used, and why."""
    for place in candidates(where):
        try:
            check_private(place)
        except FileNotFoundError:
            continue
        except OSError as error:
            if _may_have_stores(place):
                yield place, error.strerror or str(error)


def _may_have_stores(place: Path) -> bool:
    """Tell whether a folder has stores, or cannot be seen into."""
    try:
        return any(fnmatch(name, HOSTS) for name in os.listdir(place))  # noqa: PTH208  for its errors
    except FileNotFoundError:
        return False
    except OSError:
        return True


def host_folders(where: str | None = None) -> Iterator[Path]:
    """Return the folders of all hosts of this user, dead or alive."""
    for place in places(where):
        yield from sorted(place.glob(HOSTS))


def remove_host_folder(folder: Path) -> None:
    """Remove the folder of a host, of which nothing is left: at once, for all who look for it."""
    gone = folder.with_name(f"{_GONE_PREFIX}{folder.name}")
    with suppress(OSError):
        folder = folder.rename(gone)
    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder with what is in it, as far as that can be."""
    # Not by shutil, which takes longer to import than all else here: for commands that are over in
    # a moment.
    with suppress(OSError, RefusedResourceError):
        TreeRemoval().empty(os.open(folder, _FLAGS))
        folder.rmdir()


def remove_unfinished(where: str | None = None) -> None:
    """Remove the folders of hosts that died as they made them, or others as they removed them."""
    for place in places(where):
        for folder in place.glob(f"{_GONE_PREFIX}{HOSTS}"):
            _remove(folder)
        for folder in place.glob(f"{NEW_PREFIX}{_NONCE}"):
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > _MAKING:
                    _remove(folder)


def read_json(path: Path) -> Any:
    """Return what is in a small JSON file. Raises OSError or ValueError."""
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{path} is larger than {_MOST_BYTES} bytes")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(f"{path}: {error}") from error


def write_json(path: Path, value: object) -> None:
    """Write a JSON file at once or not at all. Raises OSError."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value))
    new.replace(path)
