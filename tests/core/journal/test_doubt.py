"""What nobody knows whether it was made: it is noted, and looked for when its host is dead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from doubtful_kind import DoubtfulResource
from journal_hosts import JournalHost

from probate import Outcome, ResourceOrchestrator
from probate.settlement import sweep

if TYPE_CHECKING:
    from probate.settlement import RowAccount

HOST = """
from doubtful_kind import DoubtfulResource
from probate import ResourceOrchestrator
kind = DoubtfulResource()
orchestrator = ResourceOrchestrator().register(kind)
builder = ProcessManager.builder().with_resource_orchestrator(orchestrator)
manager = builder.with_journal(sys.argv[1], reaper=False).build()
for how in sys.argv[3:]:
    owner = manager.create_process(how).pid
    try:
        kind.make(owner, sys.argv[2], how)
    except Exception as error:
        say(type(error).__name__, kind.has_resources(owner))
    else:
        say("made", kind.has_resources(owner))
sys.stdin.read()
"""

#: How each is made, what its owner is told, and what comes of it when the host has been killed.
CASES = {
    "made": ("made True", Outcome.RELEASED),
    "denied": ("PermissionError False", None),
    "lost": ("UnsettledResourceError False", Outcome.ALREADY_GONE),
    "lost after": ("UnsettledResourceError False", Outcome.RELEASED),
    "unseen": ("OSError False", None),
    "unseen for ever": ("OSError False", Outcome.RELEASED),
}


def test_only_what_is_known_not_to_be_there_is_struck_out(tmp_path: Path) -> None:
    """Neither what a `make` is in doubt of, nor what could not be undone."""
    folder, state = tmp_path / "made", tmp_path / "state"
    folder.mkdir()
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "support")}
    with JournalHost(HOST, state, str(folder), *CASES, env=path) as host:
        said = [host.line() for _ in CASES]
    orchestrator = ResourceOrchestrator().register(DoubtfulResource())
    rows: list[RowAccount] = [
        row for account in sweep(orchestrator, str(state)) for row in account.rows
    ]
    found = {
        Path(row.description).name.rpartition("-")[0].replace("-", " "): row.outcome for row in rows
    }

    assert dict(zip(CASES, said, strict=True)) == {how: case[0] for how, case in CASES.items()}
    assert found == {how: case[1] for how, case in CASES.items() if case[1] is not None}
    assert list(folder.iterdir()) == []
