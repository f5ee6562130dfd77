"""A kind whose things are made by somebody who may not say whether: files, by random names."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, final

from probate import Ordering, OwnershipTable, ResourceKind, UnsettledResourceError
from probate.journal import Named, new_file, path_identity, random_path, reclaim_path


@final
class DoubtfulResource(ResourceKind):
    """Makes files as it is told to: "made", "denied", "lost" or "lost after"; or "unseen"."""

    def __init__(self) -> None:
        super().__init__(OwnershipTable("doubtful", _release), Ordering(1), reclaim=reclaim_path)

    def make(self, pid: int, folder: str, how: str) -> str:
        path = random_path(folder, f"{how.replace(' ', '-')}-")
        named = Named[str](f"file {path}", {"path": path, "is_random": True}, partial(_seen, how))
        return self.table.acquire(pid, partial(_make, path, how), named=named)


def _make(path: str, how: str) -> str:
    if how == "denied":
        raise PermissionError(path)
    if how == "lost":
        raise UnsettledResourceError("no answer has come")
    os.close(new_file(path))
    if how == "lost after":
        raise UnsettledResourceError("no answer has come")
    return path


def _seen(how: str, path: str) -> dict[str, Any]:
    if how.startswith("unseen"):
        raise OSError(f"{path} cannot be looked at")
    return path_identity(path)


def _release(path: str) -> None:
    if "unseen for ever" in path.replace("-", " "):
        raise OSError(f"{path} cannot be removed either")
    Path(path).unlink()
