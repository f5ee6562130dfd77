"""The hooks of kind `files`."""

from __future__ import annotations

from typing import final

from probate import Ordering, ResourceKind
from probate_files.manager import FileManager
from probate_files.noted import noticed, reclaim
from probate_files.observing import observe


@final
class FileResource(ResourceKind):
    """Files: after all that may still write to them."""

    def __init__(self, manager: FileManager | None = None) -> None:
        self.manager = m = FileManager() if manager is None else manager
        super().__init__(
            m.table,
            Ordering(priority=8),
            quiesce=m.quiesce,
            adopt=m.adopt,
            cleanup=m.cleanup,
            may_block=m.may_block,
            reclaim=reclaim,
            noticed=noticed,
            observe=observe,
        )
