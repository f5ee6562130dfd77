"""CallThread: calls one after another, on a thread that can be left behind."""

from __future__ import annotations

import contextvars
import threading

import pytest

from probate.system import CallThread


def test_a_call_runs_in_its_callers_context() -> None:
    """Context variables, such as the current process, are there."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("set")
    thread = CallThread("test")

    assert thread.submit(variable.get).result(5) == "set"

    thread.close()


def test_a_thread_serves_call_after_call() -> None:
    """One thread for all; whatever a call raises is in its future; it is gone when closed."""
    thread = CallThread("test-serving")

    def fail() -> None:
        raise GeneratorExit

    first = thread.submit(threading.get_ident).result(5)
    with pytest.raises(GeneratorExit):
        thread.submit(fail).result(5)

    assert thread.submit(threading.get_ident).result(5) == first

    thread.close()

    assert "test-serving" not in {each.name for each in threading.enumerate()}


def test_an_abandoned_call_keeps_its_thread_and_nothing_else() -> None:
    """The next call gets a fresh thread; the old one ends when its call does."""
    thread, over = CallThread("test-hung"), threading.Event()
    hung = thread.submit(lambda: over.wait(10))
    [old] = [each for each in threading.enumerate() if each.name == "test-hung"]
    thread.abandon()

    assert thread.submit(lambda: "fresh").result(5) == "fresh"
    assert old.daemon
    assert old.is_alive()

    thread.close()
    over.set()
    old.join(5)

    assert not old.is_alive()
    assert hung.result() is True


def test_a_call_for_which_there_is_no_thread_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller makes it; the next one gets a thread if there is one by then."""
    calls: list[str] = []
    thread = CallThread("test-none-left")

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            thread.submit(lambda: calls.append("first"))

    thread.submit(lambda: calls.append("second")).result(5)
    thread.close()

    assert calls == ["second"]


@pytest.mark.parametrize("is_raised", [False, True], ids=["begin", "submit"])
def test_a_call_that_was_begun_before_an_interrupt_is_made_once(
    monkeypatch: pytest.MonkeyPatch, is_raised: bool
) -> None:
    """It ends before any other begins, on the same thread; what fell in is kept, or raised."""
    start = threading.Thread.start
    begun, over = threading.Event(), threading.Event()
    calls: list[str] = []
    thread = CallThread("test-interrupted")

    def first() -> None:
        begun.set()
        over.wait(5)
        calls.append("first")

    def interrupted(started: threading.Thread) -> None:
        start(started)
        begun.wait(5)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        if is_raised:
            with pytest.raises(KeyboardInterrupt):
                thread.submit(first)
        else:
            thread.begin(first)
    assert isinstance(thread.interrupt, KeyboardInterrupt) != is_raised
    second = thread.begin(lambda: calls.append("second"))
    over.set()
    second.result(5)
    thread.close()

    assert calls == ["first", "second"]


def test_a_call_that_is_cancelled_before_its_turn_is_never_made() -> None:
    """Its future is a pending one until then; the calls after it have their turn."""
    thread, over = CallThread("test-cancelled"), threading.Event()
    calls: list[str] = []
    first = thread.submit(lambda: over.wait(10))
    second = thread.submit(lambda: calls.append("second"))
    third = thread.submit(lambda: calls.append("third"))

    assert second.cancel()
    over.set()
    third.result(5)
    thread.close()

    assert first.result()
    assert calls == ["third"]


def test_what_waits_behind_a_hung_call_is_made_when_that_ends() -> None:
    """To abandon a thread loses no call that it was given before."""
    thread, over = CallThread("test-behind"), threading.Event()
    thread.submit(lambda: over.wait(10))
    behind = thread.submit(threading.get_ident)
    thread.abandon()
    fresh = thread.submit(threading.get_ident)

    assert fresh.result(5)
    assert not behind.done()

    over.set()

    assert behind.result(5) != fresh.result()

    thread.close()


def test_one_that_was_never_used_has_nothing_to_end() -> None:
    """Closing and abandoning start no thread, and do no harm twice; afterwards it can be used."""
    thread = CallThread("test-unused")
    for _ in range(2):
        thread.close()
        thread.abandon()

    assert "test-unused" not in {each.name for each in threading.enumerate()}
    assert thread.submit(lambda: "used").result(5) == "used"

    thread.close()


def test_one_for_a_loop_serves_where_no_second_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one that was to start it does its work."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    thread = CallThread("test-for-a-loop", is_for_loop=True)
    first, second = (thread.submit(threading.get_ident).result(5) for _ in range(2))
    thread.close()

    assert first == second != threading.get_ident()
