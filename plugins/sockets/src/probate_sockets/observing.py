"""The sockets that an OS process has open, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from probate.system import links_of
from probate_sockets.nettables import descriptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

    from probate import ResourceRecord

_SOCKET: Final = "socket:"


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of sockets, each with its number there; of those of few families, no more than that."""
    # Not before: the module of records brings pydantic along, which takes long.
    from probate import ResourceRecord

    links = [each for each in links_of(process.pid) if each[1].startswith(_SOCKET)]
    known = descriptions(str(process.pid)) if links else {}
    for number, link in links:
        inode = link.removeprefix(_SOCKET)
        text = known.get(inode.strip("[]"), f"socket {inode}")
        yield ResourceRecord.held("sockets", text, process.pid, number=int(number))
