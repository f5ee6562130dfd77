"""A process that lives on by itself holds nothing of whoever forked it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from children import exit_code_of_fork

from probate.system.closing import hold_only


def test_all_is_closed_but_what_is_kept() -> None:
    """Whatever the numbers; the standard streams are open, and nobody's."""
    with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as other:
        high = os.dup2(one.fileno(), 300)
        kept = {one.fileno(), high}

        def child() -> None:
            hold_only(kept)
            found = list(Path("/proc/self/fd").iterdir())
            # The one that was looked with is closed by now.
            assert {int(each.name) for each in found if each.exists()} == {0, 1, 2, *kept}
            assert {os.readlink(f"/proc/self/fd/{each}") for each in range(3)} == {os.devnull}
            assert os.path.samestat(os.fstat(high), os.fstat(one.fileno()))
            assert other.fileno() not in kept

        try:
            assert exit_code_of_fork(child) == 0
        finally:
            os.close(high)
