"""Whatever a signal handler raises, and whenever: nothing strands, and it is raised once."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from plugins_things import InlineThingResource, ThingResource, managed

from probate import ProcessState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


ROUNDS = 10_000 if os.environ.get("PROBATE_CHAOS") else 320


class ShutdownError(Exception):
    """What handlers of users raise: pytest-timeout, signal.alarm, a SIGTERM of one's own."""


class Handler:
    """Raises at a signal, as a function, a method or an object does."""

    def __init__(self) -> None:
        self.raised = 0
        self.ignored: list[None] = []

    def __call__(self, *_: object) -> None:
        self.raised += 1
        raise ShutdownError

    def method(self, *args: object) -> None:
        self(*args)


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Handler]:
    before = signal.getsignal(signal.SIGUSR2)
    made = Handler()
    # What a handler raises in a finaliser or a weak reference's callback, Python itself ignores.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: made.ignored.append(None))
    yield made
    signal.signal(signal.SIGUSR2, before)


class Flag:
    """Set without a call, so that no signal is handled in between."""

    value = False


def striking(after: float, function: Callable[[], object], times: int = 1) -> BaseException | None:
    """Call `function`, with SIGUSR2 so many seconds later and again; return what it raised.

    Perhaps the signal is handled only when it has returned.
    """
    main = threading.get_ident()
    gate, is_over = threading.Lock(), Flag()
    gate.acquire()

    def strike() -> None:
        with gate:
            for _ in range(times):
                over = time.perf_counter() + after
                while time.perf_counter() < over:
                    pass
                if times > 1 and is_over.value:
                    return
                signal.pthread_kill(main, signal.SIGUSR2)

    striker = threading.Thread(target=strike)
    striker.start()
    raised: BaseException | None = None
    try:
        try:
            gate.release()
            function()
        finally:
            # The first thing that is done: of a storm, only what is under way comes after it.
            is_over.value = True
            striker.join()
    except ShutdownError as error:
        raised = error
    for _ in range(3):
        try:
            striker.join()
        except ShutdownError as error:
            raised = raised or error
    return raised


def ours_in_this_context() -> dict[str, object]:
    """What of ours is set for all that this thread goes on to do."""
    found = copy_context().items()
    return {var.name: value for var, value in found if var.name.startswith("probate_") and value}


@pytest.mark.timeout(600 if os.environ.get("PROBATE_CHAOS") else 60)
@pytest.mark.parametrize("form", ["object", "method", "partial"])
def test_one_signal_at_any_moment_of_an_end(handler: Handler, form: str) -> None:
    """signal.alarm, pytest-timeout: the process stayed TERMINATING for ever, and all was held.

    Now it is TERMINATED, each thing was released once, and what was raised has come out. What it
    fell into as its release began may not be released twice: the account names it.
    """
    forms: dict[str, Any] = {"object": handler, "method": handler.method}
    forms["partial"] = partial(handler, 1)
    signal.signal(signal.SIGUSR2, forms[form])
    generator = random.Random(form)
    plugins = InlineThingResource("inline"), ThingResource("watched")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    kept = ours_in_this_context()
    try:
        with managed(*plugins, grace=0, deadline=10) as manager:
            for number in range(1, ROUNDS // 2 + 1):
                process = manager.create_process("p")
                things = [
                    each.give(process.pid, f"{each.kind} {i}") for each in plugins for i in range(3)
                ]
                raised = striking(generator.uniform(0, 0.0012), process.terminate)
                if process.state is ProcessState.RUNNING:
                    # It came before anything had begun.
                    process.terminate()

                assert handler.raised == number
                assert raised is not None or handler.ignored
                handler.ignored.clear()
                assert process.state is ProcessState.TERMINATED
                assert process.result is not None
                assert max(thing.releases for thing in things) == 1
                missed = [thing.name for thing in things if not thing.releases]
                failed = [error.resource for error in process.result.errors]
                assert len(missed) <= 1
                assert set(missed) <= set(failed)
                assert not manager.orchestrator.has_resources(process.pid)
                assert ours_in_this_context() == kept
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.timeout(600 if os.environ.get("PROBATE_CHAOS") else 60)
def test_a_storm_of_signals_over_an_end(handler: Handler) -> None:
    """One exception upon the other: what the first has kept from its end comes to it elsewhere."""
    signal.signal(signal.SIGUSR2, handler)
    plugins = InlineThingResource("inline"), ThingResource("watched")
    generator = random.Random(1)
    with managed(*plugins, grace=0, deadline=10) as manager:
        for _ in range(ROUNDS // 5):
            process = manager.create_process("p")
            things = [each.give(process.pid) for each in plugins for _ in range(20)]
            striking(generator.uniform(0, 0.0005), process.terminate, times=20)
            # What has lost whoever terminated it is taken up by the next to ask.
            manager.terminate_process(process.pid)

            assert process.state is ProcessState.TERMINATED
            assert max(thing.releases for thing in things) == 1
            assert not manager.orchestrator.has_resources(process.pid)
