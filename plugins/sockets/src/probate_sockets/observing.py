"""The sockets that an OS process has open, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate import ResourceRecord
from probate_sockets.address import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil


def observe(process: psutil.Process) -> Iterator[ResourceRecord]:
    """Tell of TCP, UDP and unix sockets, each with its number there."""
    for each in process.net_connections(kind="all"):
        parts = [each.family.name.removeprefix("AF_"), each.type.name.removeprefix("SOCK_").lower()]
        if each.status == "LISTEN":
            parts.append("listener")
        if each.laddr:
            parts.append(shown(each.laddr))
        if each.raddr:
            parts.append(f"to {shown(each.raddr)}")
        yield ResourceRecord.held("sockets", " ".join(parts), process.pid, number=each.fd)
