"""All cells, as they are stored beside the page that they make."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, final

from litter.things import LITTER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

#: What happens, by the letter of its column.
FAILURES: Final[Mapping[str, str]] = {
    "a": "main is killed",
    "b": "the supervisor is killed",
    "c": "the supervisor and all that descends from it are killed, with the program, in one stroke",
    "d": "main exits with 0, and has given nothing back",
    "e": "all of the program is killed, and nobody else",
}


@final
@dataclass
class Cell:
    """What was left by the program under one supervisor, after one failure."""

    supervisor: str
    is_root: bool
    failure: str
    #: What is there still and should not be; None if it was not run, and why.
    left: list[str] | None = None
    why: str = ""
    #: What is gone and should not be.
    lost: list[str] = field(default_factory=list)
    #: Until the last change, from the failure on.
    seconds: float = 0.0

    @property
    def place(self) -> tuple[str, bool, str]:
        """Which cell it is."""
        return self.supervisor, self.is_root, self.failure


@final
@dataclass
class Results:
    """All of them, and what was there to make them."""

    cells: list[Cell]
    #: Of Linux, of Python, and of each peer that was fetched.
    versions: dict[str, str]

    @classmethod
    def read(cls, file: Path) -> Results:
        """Read what `write` has written; nothing if there is no such file."""
        if not file.exists():
            return cls([], {})
        read = json.loads(file.read_text())
        cells = [Cell(**cell) for cell in read["cells"]]
        for cell, written in zip(cells, read["cells"], strict=True):
            if cell.left is not None:
                cell.left = [read["kinds"][number] for number in written["left"]]
        return cls(cells, read["versions"])

    def write(self, file: Path) -> None:
        """Write a line for each, in which kinds are numbers."""
        written = {"kinds": LITTER, "versions": self.versions, "cells": "CELLS"}
        cells = ",\n".join(f"    {json.dumps(_brief(cell))}" for cell in self.cells)
        text = json.dumps(written, indent=2).replace('"CELLS"', f"[\n{cells}\n  ]")
        file.write_text(f"{text}\n")

    def renew(self, cells: Iterable[Cell]) -> None:
        """Put cells in the place of those before them."""
        known = {cell.place: cell for cell in self.cells}
        known.update((cell.place, cell) for cell in cells)
        self.cells = list(known.values())

    def of(self, supervisor: str, *, is_root: bool) -> dict[str, Cell]:
        """The cells of a supervisor, by their failures."""
        return {
            cell.failure: cell
            for cell in self.cells
            if (cell.supervisor, cell.is_root) == (supervisor, is_root)
        }


def _brief(cell: Cell) -> dict[str, object]:
    """A cell without what is as in any other."""
    brief = {name: value for name, value in asdict(cell).items() if value not in ("", [], 0.0)}
    if cell.left is not None:
        brief["left"] = [LITTER.index(kind) for kind in cell.left]
    return {**brief, "is_root": cell.is_root, "seconds": round(cell.seconds, 1)}
