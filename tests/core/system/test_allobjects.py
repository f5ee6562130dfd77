"""heap: whoever counts references is not misled by those who look at all objects."""

from __future__ import annotations

import sys
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


def test_a_look_leaves_tuples_that_threads_have_half_made_whole() -> None:
    """CPython resizes a tuple that `tuple(iterator)` makes only while nobody else refers to it."""
    errors: list[SystemError] = []
    over = threading.Event()

    def make() -> None:
        try:
            while not over.is_set():
                tuple(number for number in range(30))
        except SystemError as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(50):
            heap.instances(lambda cls: cls is threading.Event)
    finally:
        over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)

    assert errors == []
