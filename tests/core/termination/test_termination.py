"""One termination: quiesce, grace, cleanup, retry, verify, account."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from functools import partial

import pytest
from core_scripts import run_script
from core_threads import at_once
from plugins_things import (
    FORMS,
    Thing,
    ThingResource,
    busy,
    managed,
    orchestrate,
    raising,
)

from probate import (
    CleanupResult,
    CleanupStats,
    Outcome,
    ProcessTerminatedError,
    hookimpl,
)

PID = 7


def test_all_are_quiesced_before_any_is_cleaned() -> None:
    """Mappings unmapped, then tasks touched them: whoever uses a thing is asked to stop first."""
    log: list[str] = []
    plugins = [ThingResource(kind, place, log=log) for place, kind in enumerate("abc")]
    for plugin in plugins:
        plugin.give(PID, plugin.kind)
    orchestrate(*plugins).cleanup_process(PID)

    assert log == [
        "quiesce c", "quiesce b", "quiesce a",
        "cleanup c", "release c", "cleanup b", "release b", "cleanup a", "release a",
    ]  # fmt: skip


def test_the_grace_is_one_wait_shared_by_all_kinds() -> None:
    """Three kinds whose users never stop cost one grace, not three."""
    plugins = [ThingResource(kind) for kind in "abc"]
    for plugin in plugins:
        plugin.give(PID)
        plugin.futures.append(concurrent.futures.Future())
    began = time.monotonic()
    result = orchestrate(*plugins).cleanup_process(PID, grace=0.3)
    took = time.monotonic() - began

    assert 0.3 <= took < 0.8
    assert result.is_success
    assert 0.3 <= result.stats.duration_seconds <= took


def test_the_grace_ends_with_the_last_user() -> None:
    """Nobody waits for longer than it takes; and nothing is freed before."""
    plugin = ThingResource()
    thing = plugin.give(PID)
    futures = [concurrent.futures.Future[None]() for _ in range(3)]
    plugin.futures.extend(futures)
    seen: list[int] = []

    def stop() -> None:
        for future in futures:
            seen.append(thing.releases)
            future.set_result(None)

    timer = threading.Timer(0.05, stop)
    timer.start()
    began = time.monotonic()
    orchestrate(plugin).cleanup_process(PID, grace=20)
    timer.join()

    assert time.monotonic() - began < 5
    assert seen == [0, 0, 0]
    assert thing.releases == 1


def test_without_grace_nobody_is_waited_for() -> None:
    """grace=0: users are asked, and everything is freed at once."""
    plugin = ThingResource()
    plugin.give(PID)
    plugin.futures.append(concurrent.futures.Future())
    began = time.monotonic()
    result = orchestrate(plugin).cleanup_process(PID, grace=0)

    assert time.monotonic() - began < 0.5
    assert result.is_success
    assert plugin.log[0] == "quiesce things"


def test_a_user_that_failed_has_stopped_too() -> None:
    """A future with an exception, or cancelled, is done; its exception is its owner's business."""
    plugin = ThingResource()
    plugin.give(PID)
    failed: concurrent.futures.Future[None] = concurrent.futures.Future()
    failed.set_exception(ValueError("mine"))
    cancelled: concurrent.futures.Future[None] = concurrent.futures.Future()
    cancelled.cancel()
    plugin.futures.extend([failed, cancelled])
    began = time.monotonic()

    assert orchestrate(plugin).cleanup_process(PID, grace=10).is_success
    assert time.monotonic() - began < 2


def test_the_grace_ends_at_the_deadline() -> None:
    """A deadline bounds the whole termination, the grace of a manager's too."""
    plugin, other = ThingResource(), ThingResource()
    for each in (plugin, other):
        each.futures.append(concurrent.futures.Future())
    other.give(PID)
    began = time.monotonic()
    orchestrate(other).cleanup_process(PID, grace=3, deadline=0.2)
    alone = time.monotonic() - began
    with managed(plugin, grace=3, deadline=0.2) as manager:
        pid = manager.create_process("p").pid
        plugin.give(pid)
        began = time.monotonic()
        manager.terminate_process(pid)
        by_manager = time.monotonic() - began

    assert alone < 1.5
    assert by_manager < 1.5


def test_what_is_busy_is_tried_again_after_the_other_kinds() -> None:
    """A mapping is busy until the tasks are gone; the second try frees it, without an error."""
    log: list[str] = []
    users = ThingResource("users", 1, log=log)
    used = ThingResource("used", 9, log=log)
    user = users.give(PID, "user")
    used.give(PID, "page", lambda: Outcome.RELEASED if user.releases else Outcome.BUSY, nbytes=4096)
    result = orchestrate(users, used).cleanup_process(PID, grace=0)

    assert [line for line in log if line.startswith("release")] == [
        "release page", "release user", "release page",
    ]  # fmt: skip
    assert result.is_success
    assert result.errors == ()
    assert result.stats.by_type == {"used": 1, "users": 1}
    assert result.stats.bytes_freed == 4096


def after(other: Thing) -> Outcome:
    return Outcome.RELEASED if other.behave is None else Outcome.BUSY


def test_a_chain_of_users_is_unwound_link_by_link() -> None:
    """As long as every pass frees something, the next one is made."""
    plugin = ThingResource()
    links: list[Thing] = []
    for number in range(5):
        # Each is busy until the one acquired before it is gone: the worst order.
        behave = partial(after, links[-1]) if links else None
        links.append(plugin.give(PID, str(number), behave))

    def release(thing: Thing) -> Outcome:
        outcome = thing.release() or Outcome.RELEASED
        if outcome is Outcome.RELEASED:
            thing.behave = None
        assert isinstance(outcome, Outcome)
        return outcome

    plugin._release = release  # type: ignore[method-assign]  # another release function
    result = orchestrate(plugin).cleanup_process(PID, grace=0)

    assert result.is_success, result.errors
    assert result.stats.resources_freed == 5


def test_what_stays_busy_is_reported_once_there_is_no_progress() -> None:
    """Tried a few times, then an error with the resource's name; it stays owned."""
    plugin = ThingResource()
    stuck = plugin.give(PID, "stuck", lambda: Outcome.BUSY, nbytes=10)
    plugin.give(PID, "free", nbytes=1)
    began = time.monotonic()
    result = orchestrate(plugin).cleanup_process(PID, grace=0)

    assert time.monotonic() - began < 2
    assert [str(error) for error in result.errors] == ["things: stuck: busy: still in use"]
    assert (result.stats.resources_freed, result.stats.bytes_freed) == (1, 1)
    assert 2 <= stuck.releases <= 4
    assert plugin.table.nbytes(PID) == 10


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.REFUSED])
@pytest.mark.parametrize("times", [1, 99])
def test_a_retry_does_not_make_a_failure_unsaid(outcome: Outcome, times: int) -> None:
    """One fails for good while another of its kind is busy: the failure stays in the account."""
    plugin = ThingResource()
    plugin.give(PID, "bad", lambda: outcome)
    plugin.give(PID, "slow", busy(times))
    result = orchestrate(plugin).cleanup_process(PID, grace=0)
    of_bad = [error.outcome for error in result.errors if error.resource == "bad"]

    assert of_bad == [outcome]
    assert result.stats.errors_encountered == len(result.errors) == (1 if times == 1 else 2)
    assert not result.is_success


def test_what_remains_is_an_error_never_silence() -> None:
    """A plugin that says it cleaned, and did not, is found out."""
    plugin = ThingResource()
    plugin.give(PID)
    plugin.faults["cleanup"] = CleanupStats
    result = orchestrate(plugin).cleanup_process(PID, grace=0)

    assert [(e.outcome, e.message) for e in result.errors] == [
        (Outcome.FAILED, "resources remain after cleanup")
    ]


def test_errors_that_a_plugin_only_counts_are_counted() -> None:
    """A third-party plugin with counts of its own may give a number without details."""
    plugin = ThingResource()
    plugin.faults["has_resources"] = iter([True, *[False] * 9]).__next__
    plugin.faults["cleanup"] = lambda: CleanupStats(
        resources_freed=2, bytes_freed=5, errors_encountered=3, by_type={"whatever": 2}
    )
    result = orchestrate(plugin).cleanup_process(PID, grace=0)

    assert result.stats.errors_encountered == len(result.errors) == 3
    assert result.stats.by_type == {"things": 2}


def test_kinds_without_resources_are_not_called() -> None:
    """An empty kind costs a question and nothing else."""
    log: list[str] = []
    empty, full = ThingResource("empty", 5, log=log), ThingResource("full", log=log)
    full.give(PID)
    orchestrate(empty, full).cleanup_process(PID)

    assert [line for line in log if "empty" in line] == []


def test_nothing_to_free() -> None:
    """An account of nothing is a success; so is one without any plugin."""
    for orchestrator in (orchestrate(), orchestrate(ThingResource())):
        result = orchestrator.cleanup_process(42)

        assert str(result) == "PID 42 cleanup: 0 resources freed, 0 bytes freed, 0 errors"
        assert result.is_success
        assert not result.has_freed_resources


def test_a_second_cleanup_finds_nothing() -> None:
    """Idempotent; and without a manager the pid may acquire again."""
    plugin = ThingResource()
    orchestrator = orchestrate(plugin)
    plugin.give(PID)

    assert orchestrator.cleanup_process(PID).stats.resources_freed == 1
    assert orchestrator.cleanup_process(PID).stats.resources_freed == 0

    plugin.give(PID)

    assert orchestrator.cleanup_process(PID).stats.resources_freed == 1


def test_the_account_is_exact() -> None:
    """by_type, bytes, and the display string, for 17 resources of two kinds."""
    many, one = ThingResource("many"), ThingResource("one")
    for _ in range(16):
        many.give(42, nbytes=200)
    one.give(42, nbytes=896)
    result = orchestrate(many, one).cleanup_process(42)

    assert str(result) == "PID 42 cleanup: 17 resources freed, 4096 bytes freed, 0 errors"
    assert result.stats.by_type == {"many": 16, "one": 1}
    assert result.stats.duration_seconds > 0


def test_a_pid_acquires_nothing_while_it_is_cleaned() -> None:
    """Refused from the first step on, and accepted when all is over."""
    plugin = ThingResource()
    orchestrator = orchestrate(plugin)
    errors: list[object] = []

    def try_to_acquire() -> None:
        try:
            plugin.give(PID)
        except ProcessTerminatedError as error:
            errors.append(error.pid)

    def quiesce() -> tuple[()]:
        try_to_acquire()
        return ()

    plugin.give(PID, "curious", try_to_acquire)
    plugin.faults["quiesce"] = quiesce
    result = orchestrator.cleanup_process(PID)

    assert errors == [PID, PID]
    assert result.stats.resources_freed == 1


@pytest.mark.parametrize("plugin", FORMS)
def test_many_pids_from_many_threads_on_one_orchestrator(plugin: type[ThingResource]) -> None:
    """Each account is its own pid's, and all comes free."""
    plugins = [plugin(kind) for kind in "abc"]
    orchestrator = orchestrate(*plugins)
    pids = range(1, 161)
    for pid in pids:
        for number, each in enumerate(plugins):
            for _ in range(number + 1):
                each.give(pid, nbytes=pid)

    def clean(some: range) -> list[CleanupResult]:
        return [orchestrator.cleanup_process(pid) for pid in some]

    outcomes = at_once([partial(clean, pids[start::8]) for start in range(8)])

    for results in outcomes:
        assert isinstance(results, list)
        for result in results:
            assert result.stats.by_type == {"a": 1, "b": 2, "c": 3}
            assert result.stats.bytes_freed == 6 * result.pid
    assert [plugin.table.pids() for plugin in plugins] == [[], [], []]


@pytest.mark.parametrize("seconds", [-1, -0.1, float("nan"), "1", None, True])
def test_a_bad_grace_is_refused(seconds: object) -> None:
    """ValueError before anything is asked to stop."""
    plugin = ThingResource()
    plugin.give(PID)

    with pytest.raises(ValueError, match="grace"):
        orchestrate(plugin).cleanup_process(PID, grace=seconds)  # type: ignore[arg-type]  # that is the point

    assert plugin.log == []
    assert PID in plugin.table


def test_a_usage_of_its_own_is_asked_through_the_hook() -> None:
    """A plugin's `usage` wins over its tables."""
    from probate import ResourceUsage

    class Counted(ThingResource):
        @hookimpl
        def usage(self, pid: int) -> ResourceUsage:
            return ResourceUsage(kind="things", count=99)

    plugin = Counted()
    plugin.give(PID)

    assert orchestrate(plugin).usage(PID)["things"].count == 99


def test_a_failure_of_release_is_never_replayed() -> None:
    """FAILED is tried once, however many passes there are."""
    plugin = ThingResource()
    bad = plugin.give(PID, "bad", raising(OSError("no")))
    plugin.give(PID, "slow", busy(1))
    orchestrate(plugin).cleanup_process(PID, grace=0)

    assert bad.releases == 1


@pytest.mark.parametrize("deadline", ["None", "10"])
def test_a_sigint_during_the_grace_ends_the_grace_only(deadline: str) -> None:
    """Ctrl-C: everything is released, then KeyboardInterrupt is raised."""
    script = run_script(
        f"""
import concurrent.futures, os, signal, threading, time
from plugins_things import ThingResource, orchestrate
signal.signal(signal.SIGINT, signal.default_int_handler)
plugins = [ThingResource(kind) for kind in "abc"]
for plugin in plugins:
    plugin.give(7)
    plugin.futures.append(concurrent.futures.Future())
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
began = time.monotonic()
try:
    orchestrate(*plugins).cleanup_process(7, grace=60, deadline={deadline} and 100)
except KeyboardInterrupt:
    print("interrupted", [7 in plugin.table for plugin in plugins])
print(0.2 < time.monotonic() - began < 10)
"""
    )

    assert script.stderr == ""
    assert script.stdout == "interrupted [False, False, False]\nTrue\n"
