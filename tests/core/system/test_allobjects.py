"""heap: whoever counts references is not misled by those who look at all objects."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

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


#: A look by the main thread, while two others make tuples, and somebody audits what is called.
LOOKS = """
import sys, threading
from probate.system import heap

errors, over = [], threading.Event()

def make():
    try:
        while not over.is_set():
            tuple(number for number in range(30))
    except SystemError as error:
        errors.append(error)

if sys.argv[1] == "audited":
    sys.addaudithook(lambda *_: None)
threads = [threading.Thread(target=make) for _ in range(2)]
sys.setswitchinterval(1e-6)
try:
    for thread in threads:
        thread.start()
    for _ in range(50):
        heap.instances(lambda cls: cls is threading.Event)
finally:
    over.set()
sys.exit(str(errors) if errors else 0)
"""


@pytest.mark.parametrize("how", ["unaudited", "audited"])
def test_a_look_leaves_tuples_that_threads_have_half_made_whole(how: str) -> None:
    """CPython resizes a tuple that `tuple(iterator)` makes only while nobody else refers to it.

    Hooks of `sys.addaudithook`, which filelock has, are Python code, that lets other threads run.
    """
    ran = subprocess.run(
        [sys.executable, "-c", LOOKS, how], capture_output=True, text=True, timeout=50, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, "")
