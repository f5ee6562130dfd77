"""One look at all OS processes serves for many things, and not for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from probate.journal import users
from probate.journal.users import look_again, users_of_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest


def test_a_look_serves_for_longer_where_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some times as long as it has taken, and no more than two seconds."""
    looks: list[float] = []

    def others() -> Iterator[int]:
        looks.append(time.monotonic())
        time.sleep(0.3)
        return iter(())

    monkeypatch.setattr(users, "_others", others)
    look_again()
    started = time.monotonic()
    while len(looks) < 3:
        users_of_file(0, tmp_path.stat())
        time.sleep(0.01)
    took = time.monotonic() - started
    look_again()

    assert looks[1] - looks[0] >= 5 * 0.3
    # A machine may be busy.
    assert took < 2 * (2.0 + 0.3) + 10
