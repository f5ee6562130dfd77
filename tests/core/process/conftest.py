"""A manager of things, to terminate processes with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from plugins_things import ThingResource, managed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import ProcessManager


@pytest.fixture
def plugin() -> ThingResource:
    return ThingResource()


@pytest.fixture
def manager(plugin: ThingResource) -> Iterator[ProcessManager]:
    with managed(plugin) as manager:
        yield manager
