"""What a settlement says: of each host, and of each thing that it had left."""

from __future__ import annotations

from enum import StrEnum
from typing import final

from pydantic import BaseModel, ConfigDict

from probate.outcome import Outcome


class HostState(StrEnum):
    """Says what was found of a host."""

    #: It runs: what is its own is left to it.
    ALIVE = "alive"
    #: It is dead, and its estate was settled just now.
    SETTLED = "settled"
    #: It is dead, and somebody else settles just now.
    BEING_SETTLED = "being settled"
    #: Whether it lives cannot be told from here: another pid namespace, or an older kernel.
    UNKNOWN = "unknown"
    #: Its store cannot be read, or was written by a newer version: it was set aside. Or others may
    #: change the folder in which stores are: it is not looked into.
    UNREADABLE = "unreadable"


@final
class OwnerAccount(BaseModel):
    """Says which process of a dead host something was of; its pid is 0 if that is not known."""

    model_config = ConfigDict(frozen=True)

    pid: int
    name: str = ""
    #: What it was known by outside its host.
    key: str | None = None
    #: The pid of the process that owned it.
    parent: int | None = None


@final
class RowAccount(BaseModel):
    """Says what became of one thing."""

    model_config = ConfigDict(frozen=True)

    #: HOST:NUMBER, as `probate sweep --forget` takes it.
    row: str
    kind: str
    description: str
    owner: OwnerAccount
    outcome: Outcome
    #: Why it could not be given back; empty if it was.
    text: str = ""
    #: How often that was tried.
    tries: int = 1

    @property
    def is_kept(self) -> bool:
        """Whether it is still there, as far as is known, and tried again by the next sweep."""
        return self.outcome not in {Outcome.RELEASED, Outcome.ALREADY_GONE}


@final
class HostAccount(BaseModel):
    """Says what was found of one host, and what became of what it had left."""

    model_config = ConfigDict(frozen=True)

    store: str
    #: The host's process id, and its command line; 0 and empty if its header cannot be read.
    pid: int = 0
    command: tuple[str, ...] = ()
    state: HostState
    #: Why it is so, where that is not plain.
    text: str = ""
    #: The processes that it had when it died, as far as they had made anything by a name, or had a
    #: key: one that is in no row held nothing that outlived the host.
    owners: tuple[OwnerAccount, ...] = ()
    rows: tuple[RowAccount, ...] = ()
    #: Whether nothing was done, but all that comes before the act.
    is_dry_run: bool = False

    @property
    def kept(self) -> list[RowAccount]:
        """Return what could not be given back."""
        return [row for row in self.rows if row.is_kept]
