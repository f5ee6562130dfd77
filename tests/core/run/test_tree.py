"""The OS processes of a run are looked for among all: as often as it takes, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probate.run import tree as module
from probate.run.facts import RunFacts
from probate.run.options import RunOptions

if TYPE_CHECKING:
    import pytest


def test_nobody_is_looked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks must find nobody; what asks those to stop who are found looks for no more."""
    tree = RunFacts.of_this_process(RunOptions(("command",))).tree()
    looks = []
    everyone = module._everyone

    def counted(since: int) -> dict[int, module._Seen]:
        looks.append(since)
        return everyone(since)

    monkeypatch.setattr(module, "_everyone", counted)
    ended = tree.end(grace=5)
    tree.close()

    assert (ended, len(looks)) == ([], 2)
