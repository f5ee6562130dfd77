"""Selectors that poll without an epoll instance are found, and looked for only if there may be."""

from __future__ import annotations

import gc
import os
import selectors
from typing import TYPE_CHECKING

import pytest

from probate.system import polled
from probate.system.selecting import without_epoll

if TYPE_CHECKING:
    from collections.abc import Iterator


class Derived(selectors.SelectSelector):
    """Somebody's own."""


@pytest.fixture
def number() -> Iterator[int]:
    number = os.eventfd(0)
    yield number
    os.close(number)


@pytest.mark.parametrize("make", [selectors.PollSelector, selectors.SelectSelector, Derived])
def test_each_is_found_while_it_lives(make: type[selectors.BaseSelector], number: int) -> None:
    """cpython#87079: the kernel knows of none while no thread waits in it."""
    before = without_epoll()
    with make() as selector:
        selector.register(number, selectors.EVENT_READ)

        assert any(each is selector for each in without_epoll())
        assert polled({number}) == {number: []}

        selector.unregister(number)

        assert polled({number}) == {}
    del selector
    gc.collect()

    assert [type(each) for each in without_epoll()] == [type(each) for each in before]


def test_objects_are_looked_through_only_if_there_is_one_that_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes some milliseconds, and a termination asks each time."""
    with selectors.PollSelector() as known:
        assert known in without_epoll()
        looks: list[int] = []
        look = gc.get_objects

        def counted() -> list[object]:
            looks.append(1)
            return look()

        monkeypatch.setattr(gc, "get_objects", counted)
        for _ in range(3):
            assert known in without_epoll()

        assert looks == []

        with selectors.PollSelector() as other:
            assert other in without_epoll()

        # For the classes, and for those of them that are asked for.
        assert looks == [1, 1]
