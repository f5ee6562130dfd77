"""Where stores are kept: one folder of this user's, and in it a folder for each host.

A host takes the first place that can be used; a sweep looks at all of them, so that one run by
cron finds what a login has made.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: What the folder of a host is called, before what makes it unique.
PREFIX: Final = "host-"

#: And before it is whole; and how many seconds it stays so at most.
NEW_PREFIX: Final = "new-"
_MAKING: Final = 3600.0

#: In such a folder: who the host is; the lock of whoever settles; what could not be given back.
HEADER: Final = "host.json"
LOCK: Final = "lock"
KEPT: Final = "kept.json"

#: The most bytes that are read of such a file of a host that may have written anything.
_MOST_BYTES: Final = 1 << 24


def candidates() -> list[Path]:
    """Return the places for stores of this user, best first."""
    uid = os.geteuid()
    if path := os.environ.get("PROBATE_STATE"):
        return [Path(path)]
    found = [Path(f"/run/user/{uid}/probate")]
    with suppress(RuntimeError):
        found.append(Path.home() / ".local/state/probate")
    return [*found, Path(f"/tmp/probate-{uid}")]  # noqa: S108  checked before it is used


def check_private(path: Path) -> None:
    """Raise OSError unless a folder is this user's, and closed to all others."""
    fd = os.open(path, _FLAGS)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to user {status.st_uid}")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(f"others may enter {path}: chmod 700 it")
    finally:
        os.close(fd)


def make_host_folder(header: object, where: str | None = None) -> Path:
    """Make a folder for the store of a new host, in `where` or the first place that will do.

    It has its header when it has its name: whoever sweeps sees whose it is.

    Raises OSError, which says what was wrong with each.
    """
    problems: list[str] = []
    for place in candidates() if where is None else [Path(where)]:
        try:
            # The folder of all logins of a user is the system's to make, not ours.
            place.mkdir(0o700, parents=place.parts[:3] != ("/", "run", "user"), exist_ok=True)
            check_private(place)
            nonce = secrets.token_hex(8)
            new = place.resolve() / f"{NEW_PREFIX}{nonce}"
            new.mkdir(0o700)
            (new / LOCK).touch(0o600)
            write_json(new / HEADER, header)
            folder = new.rename(new.with_name(f"{PREFIX}{nonce}"))
        except OSError as error:
            problems.append(f"{place}: {error.strerror or error}")
        else:
            return folder
    raise OSError(
        f"no folder for the journal can be used ({'; '.join(problems)}); name one by "
        "PROBATE_STATE or with_journal(path)"
    )


def places(where: str | None = None) -> Iterator[Path]:
    """Return the folders that there are for stores of this user, and that nobody else may enter."""
    for place in candidates() if where is None else [Path(where)]:
        with suppress(OSError):
            check_private(place)
            yield place


def host_folders(where: str | None = None) -> Iterator[Path]:
    """Return the folders of all hosts of this user, dead or alive."""
    for place in places(where):
        yield from sorted(place.glob(f"{PREFIX}*"))


def remove_unfinished(where: str | None = None) -> None:
    """Remove the folders of hosts that died as they made them: there is nothing in them."""
    for place in places(where):
        for folder in place.glob(f"{NEW_PREFIX}*"):
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > _MAKING:
                    shutil.rmtree(folder)


def read_json(path: Path) -> Any:
    """Return what is in a small JSON file. Raises OSError or ValueError."""
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{path} is larger than {_MOST_BYTES} bytes")
    return json.loads(content)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file at once or not at all. Raises OSError."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value))
    new.replace(path)
