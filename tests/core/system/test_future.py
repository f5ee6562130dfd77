"""Future: an exception that falls in leaves it whole."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from probate.system import Future

if TYPE_CHECKING:
    from collections.abc import Callable


class FallenInError(Exception):
    """Raised where a signal handler may raise."""


def interrupted(function: Callable[[], object], after: int) -> bool:
    """Call `function`, raising after so many returns of C functions; tell whether it was so many.

    That is when the interpreter calls signal handlers (`signal`, "Execution of Python signal
    handlers"): never between an instruction and the next.
    """
    left = after

    def profile(_: object, event: str, __: object) -> None:
        nonlocal left
        if event in ("c_return", "call"):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise FallenInError

    sys.setprofile(profile)
    try:
        function()
    except FallenInError:
        return True
    finally:
        sys.setprofile(None)
    return False


CALLS: dict[str, Callable[[Any], object]] = {
    "add_done_callback": lambda future: future.add_done_callback(str),
    "done": lambda future: future.done(),
    "running": lambda future: future.running(),
    "cancelled": lambda future: future.cancelled(),
    "repr": repr,
}


@pytest.mark.parametrize("name", CALLS)
def test_whoever_sets_the_result_never_waits_for_ever(name: str) -> None:
    """At every moment of a call; that of the standard library is stranded by some of them."""
    after = 0
    while True:
        future: concurrent.futures.Future[int] = Future()
        has_fallen = interrupted(lambda future=future: CALLS[name](future), after)  # type: ignore[misc]
        setter = threading.Thread(target=future.set_result, args=(7,), daemon=True)
        setter.start()
        setter.join(10)

        assert not setter.is_alive()
        assert future.result(0) == 7
        if not has_fallen:
            break
        after += 1
    assert after >= 2


def test_it_is_one_of_the_standard_library() -> None:
    """It is waited for as any other, with others."""
    futures: list[concurrent.futures.Future[int]] = [Future(), concurrent.futures.Future()]
    for future in futures:
        threading.Thread(target=future.set_result, args=(1,)).start()

    assert concurrent.futures.wait(futures, 10).done == set(futures)
    assert [each.result() for each in concurrent.futures.as_completed(futures, 10)] == [1, 1]


def test_what_falls_into_a_callback_that_is_called_at_once_is_raised() -> None:
    """The standard library logs and swallows it: a Ctrl-C would be lost."""
    future: concurrent.futures.Future[int] = Future()
    future.set_result(7)

    def interrupt(_: object) -> None:
        raise FallenInError

    with pytest.raises(FallenInError):
        future.add_done_callback(interrupt)
