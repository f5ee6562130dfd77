"""What other ways of giving back leave is what the page says."""

from __future__ import annotations

import pytest
from documents import DOCS, REPOSITORY, check_console, code_blocks


@pytest.mark.timeout(200)
def test_it_is_so() -> None:
    """Each program is ended as the page says, and the kernel asked what is left."""
    [console] = code_blocks(DOCS / "explanation/beside-others.md", "console")

    check_console(console, REPOSITORY)
