"""heap: whoever counts references is not misled by those who look at all objects."""

from __future__ import annotations

import threading

from probate.system import heap


class Thing:
    """One among all objects."""


def test_instances_are_found_by_what_their_class_is() -> None:
    """Each class is asked for once, however many instances it has."""
    things = [Thing() for _ in range(3)]
    asked: list[type] = []

    def is_thing(cls: type) -> bool:
        asked.append(cls)
        return cls is Thing

    found = heap.instances(is_thing)

    assert sorted(map(id, found)) == sorted(map(id, things))
    assert len(asked) == len(set(asked))


def test_nobody_looks_while_it_is_unobserved() -> None:
    """A look that refers to all objects waits, and comes to its end after."""
    is_over = threading.Event()

    def look() -> None:
        heap.instances(lambda _: False)
        is_over.set()

    with heap.unobserved():
        thread = threading.Thread(target=look)
        thread.start()

        assert not is_over.wait(0.1)
    assert is_over.wait(30)
    thread.join()
