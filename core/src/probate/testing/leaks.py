"""Fails tests that leave something behind; docs/leaks.md says what that is, and what is not.

A look is taken just before a test's own fixtures are set up, after those of its module and session,
and another when they have been torn down, before those are. What has come between the two is a
suspicion only. When the test's report is made, what pytest held for the test is dropped, garbage is
collected, and for a moment what is just ending may end; what is there still, and was acquired
neither by an import, nor by pytest, nor by a thread that was there before, nor for somebody who
outlives the test (keepers.py), is left behind.

Both looks hang on `Node.setup` and `Node.teardown`, which every runner calls, that of reruns, too,
and all kinds of items have. Tests that failed, or were skipped, are not judged: their tracebacks
keep what they had, and they have been told of. Nothing runs between tests, and no thread ever.
"""

from __future__ import annotations

import fnmatch
import gc
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import pytest

from probate.testing.describing import (
    ADVICE,
    describe,
    describe_site,
    is_made_by_c,
    is_of_runner,
    kind_name,
    name_of_coroutine,
    site_of,
)
from probate.testing.held import Held, Thing, pending_tasks
from probate.testing.keepers import Keepers
from probate.testing.sites import Site
from probate.testing.traced import Name, Trace, record, remaining
from probate.testing.wrapped import WrappedFunctions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from _pytest.fixtures import FixtureDef

#: Seconds that what is just ending gets to end: a thread that was joined, the peer of a connection.
_ENDING: Final = 0.5

#: How many tests may have a library keep more of a kind: a cache is full some time.
_CACHE_FILLS: Final = 3

_MARKER: Final = "probate_leaks"


@final
class Left(NamedTuple):
    """One thing that a test has left behind."""

    kind: str
    text: str
    site: Site | None
    #: Equal for what the test leaves when it is run once more.
    sort: tuple[str, str, str]


@final
class Window:
    """The time from before a test's own fixtures to after them."""

    def __init__(self, before: Held) -> None:
        self.before = before
        #: The thread that runs the test.
        self.tid = threading.get_native_id()
        self.trace = Trace()
        self.suspicions: set[Thing] = set()
        self.has_passed = True
        self.is_closed = False
        #: Tasks that ran when the runner of pytest's plugins for asyncio ended.
        self.tasks: list[Left] = []


@final
class LeakCheck:
    """The hooks; one for a session."""

    def __init__(self, config: pytest.Config, *, every_test: bool, confirm: bool) -> None:
        self._config = config
        self._every_test = every_test
        self._confirm = confirm
        self._ignored: list[str] = config.getini(f"{_MARKER}_ignore")
        self._window: Window | None = None
        self._latest: Held | None = None
        self._next: pytest.Item | None = None
        self._is_crediting = False
        #: What the run once more has left; None while it is not that.
        self._again: list[Left] | None = None
        self._wider: dict[FixtureDef[Any], None] = {}
        self._files: set[str] = set()
        #: What libraries keep, by sort, with the tests in which it came.
        self._kept: dict[tuple[str, str], dict[Thing, str]] = {}
        self._wrapped = WrappedFunctions(self._note_cancelled)
        self._wrapped.install()

    def pytest_unconfigure(self) -> None:
        """Put back what was wrapped."""
        record(None)
        self._wrapped.restore()

    def pytest_report_header(self) -> str:
        """Say that leaks are looked for."""
        return "probate: tests fail that leave something behind" + (
            ", confirmed by a second run" if self._confirm else ""
        )

    def _options(self, item: pytest.Item) -> tuple[bool, list[str]]:
        """Return whether a test is judged, and what it may leave."""
        marker = item.get_closest_marker(_MARKER)
        if marker is None:
            return self._every_test, self._ignored
        enabled = marker.args[0] if marker.args else marker.kwargs.get("enabled", True)
        ignored = marker.kwargs.get("ignore", ())
        return enabled, [*self._ignored, *([ignored] if isinstance(ignored, str) else ignored)]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Have a look taken when the item's own turn has come."""
        self._window = None
        if self._options(item)[0]:
            _hang(item, "setup", self._open)
            _hang(item, "teardown", self._close)
        return (yield)

    def _open(self, setup: Callable[[], None]) -> None:
        self._window = Window(self._look())
        record(self._window.trace)
        setup()

    def _close(self, teardown: Callable[[], None]) -> None:
        try:
            teardown()
        finally:
            self._look_again()

    def _look(self) -> Held:
        self._latest = Held.take(self._latest)
        return self._latest

    def _look_again(self) -> None:
        if (window := self._window) is not None and not window.is_closed:
            record(None)
            window.is_closed = True
            if window.has_passed:
                window.suspicions = self._look().since(window.before)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Keep the next item, for a second run."""
        self._next = nextitem
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: FixtureDef[Any]) -> Generator[None, object, object]:
        """Count in what fixtures of a wider scope acquire."""
        if fixturedef.scope == "function":
            return (yield)
        self._wider[fixturedef] = None
        window = self._window
        if window is None or window.is_closed or self._is_crediting:
            return (yield)
        before = self._look()
        record(None)
        self._is_crediting = True
        try:
            return (yield)
        finally:
            self._is_crediting = False
            window.before = window.before.crediting(before, self._look())
            record(window.trace)

    def pytest_fixture_post_finalizer(self, fixturedef: FixtureDef[Any]) -> None:
        """Count in what wider fixtures put back when they make way for another value."""
        window = self._window
        if fixturedef.scope != "function" and window is not None and not window.is_closed:
            window.before = window.before.with_dispositions_of(self._look())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Judge when the test is over, before that is reported to anybody."""
        report = yield
        window = self._window
        if window is None:
            return report
        if report.outcome != "passed":
            window.has_passed = False
        if report.when == "teardown":
            self._window = None
            _unhang(item)
            if window.has_passed and (left := self._judge(item, window)):
                report.outcome = "failed"
                report.longrepr = self._told(left)
        return report

    def _judge(self, item: pytest.Item, window: Window) -> list[Left]:
        """Return what the test has left, after a second look, and perhaps a second run."""
        left = self._still_there(item, window)
        if self._again is not None:
            # This is the second run, whose report nobody sees. A fixed name it found there.
            self._again += [*left, *map(_left_name, window.trace.found.values())]
            return []
        if left and self._confirm:
            return self._confirmed(item, left)
        return left

    def _still_there(self, item: pytest.Item, window: Window) -> list[Left]:
        has_names = any(True for _ in remaining(window.trace))
        if not (window.suspicions or has_names or window.tasks):
            return []
        if getattr(item, "funcargs", None):
            # pytest drops them next, and what only they refer to is given back then.
            item.funcargs = {}  # type: ignore[attr-defined]
        _reap()
        gc.collect()
        files = self._test_files(item)
        keepers = Keepers(files, self._fixture_values())
        left = self._lasting(item, window, keepers)
        left += [
            _left_name(name)
            for name in remaining(window.trace)
            if not _is_others(name.site, window)
            and not self._is_pytests(name.name)
            and keepers.of_name(name.name, name.site) is None
        ]
        left += window.tasks
        _, ignored = self._options(item)
        return [each for each in left if not _is_ignored(each, ignored)]

    def _lasting(self, item: pytest.Item, window: Window, keepers: Keepers) -> list[Left]:
        """Return the suspicions that are so still when they have had their time."""
        over = time.monotonic() + _ENDING
        sites = {thing: site_of(thing, window.trace) for thing in window.suspicions}
        excused: dict[Thing, bool] = {}
        while True:
            now = self._look()
            things = window.suspicions & now.since(window.before)
            for thing in things - excused.keys():
                excused[thing] = self._is_excused(thing, sites[thing], keepers, window, item)
            things = {thing for thing in things if not excused[thing]}
            kinds = {each.kind for each in things}
            # Dispositions are given back at once, or never; all else by others than this thread.
            if kinds <= {"signals"} or (len(now.threads) == 1 and "processes" not in kinds):
                break
            if time.monotonic() > over:
                break
            time.sleep(0.005)
            _reap()
        # In one order, whatever a set makes of it.
        return [
            _left(thing.kind, describe(thing, window.before), sites[thing], kind_name(thing))
            for thing in sorted(things, key=str)
        ]

    def _is_excused(
        self,
        thing: Thing,
        site: Site | None,
        keepers: Keepers,
        window: Window,
        item: pytest.Item,
    ) -> bool:
        if thing.kind == "signals":
            return False
        if site is not None and _is_others(site, window):
            return True
        keeper = keepers.of(thing, site)
        if keeper is None and site is None and is_made_by_c(thing):
            # A pool of threads, say, or what a library tells itself of signals by: as a cache.
            keeper = "a library of C's"
        if keeper is None:
            return False
        if keeper.startswith("fixture"):
            return True
        kept = self._kept.setdefault((thing.kind, keeper), {})
        kept[thing] = item.nodeid
        there = self._look().since(window.before.emptied())
        tests = {nodeid for each, nodeid in kept.items() if each in there}
        return len(tests) <= _CACHE_FILLS

    def _confirmed(self, item: pytest.Item, left: list[Left]) -> list[Left]:
        """Run the test once more; return what it leaves each time, or all if it does not pass."""
        from _pytest.runner import runtestprotocol

        self._again = []
        try:
            if hasattr(item, "_initrequest"):
                item._initrequest()  # noqa: SLF001  as pytest's own plugins for reruns do
            reports = runtestprotocol(item, log=False, nextitem=self._next)
        finally:
            again, self._again = self._again, None
        if not all(report.passed for report in reports):
            return left
        sorts = {each.sort for each in again}
        # What a signal does is a difference the first time only.
        return [each for each in left if each.sort in sorts or each.kind == "signals"]

    def _told(self, left: list[Left]) -> str:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        lines = [f"left behind: {left[0].text}{more}", "", "The test has left behind:"]
        for each in left:
            where = "" if each.site is None else describe_site(each.site, self._files)
            lines += [f"  {each.text}", *([f"      {where}"] if where else [])]
        lines.append("What to do:")
        lines += [f"  {kind}: {ADVICE[kind]}" for kind in sorted({each.kind for each in left})]
        lines.append('  or allow it: @pytest.mark.probate_leaks(ignore=["KIND or *PATTERN*"])')
        return "\n".join(lines)

    def _test_files(self, item: pytest.Item) -> set[str]:
        self._files = {str(item.path)}
        for plugin in self._config.pluginmanager.get_plugins():
            file = getattr(plugin, "__file__", None)
            if isinstance(file, str) and file.endswith("conftest.py"):
                self._files.add(file)
        return self._files

    def _fixture_values(self) -> dict[str, object]:
        return {
            fixture.argname: fixture.cached_result[0]
            for fixture in self._wider
            if fixture.cached_result is not None and fixture.cached_result[0] is not None
        }

    def _is_pytests(self, path: str) -> bool:
        """Tell whether a path is below the folder that pytest removes by itself."""
        factory = getattr(self._config, "_tmp_path_factory", None)
        base = getattr(factory, "_basetemp", None)
        return base is not None and f"{path}/".startswith(f"{base}/")

    def _note_cancelled(self, loop: Any) -> None:
        """Note tasks that a runner is about to cancel, if it is a plugin's and not the test's own.

        A test that is a coroutine has then ended, and its fixtures have: they run on nobody's
        behalf. `asyncio.run` within a test is another matter: to cancel is what it promises.
        """
        window = self._window
        if window is None or window.is_closed:
            return
        # From the plugin of anyio, its own runner lies between.
        if not all("/anyio/_backends/" in place.file for place in Site.here().places()):
            return
        for ref in pending_tasks() - window.before.tasks:
            task = ref()
            if task is not None and task.get_loop() is loop and not is_of_runner(task):
                text = describe(Thing("tasks", (ref,)), window.before)
                window.tasks.append(_left("tasks", text, None, name_of_coroutine(task)))


def _left(kind: str, text: str, site: Site | None, name: str) -> Left:
    place = None if site is None else next(site.places(), None)
    where = "" if place is None else f"{place.file}:{place.line}"
    return Left(kind, text, site, (kind, name, where))


def _left_name(name: Name) -> Left:
    return _left(name.kind, f"{name.what} {name.name}", name.site, name.what)


def _is_others(site: Site, window: Window) -> bool:
    """Tell whether something was acquired on behalf of somebody who outlives the test."""
    return (
        site.is_import
        or site.is_machinery
        or (site.tid in window.before.threads and site.tid != window.tid)
    )


def _is_ignored(left: Left, ignored: list[str]) -> bool:
    return any(left.kind == each or fnmatch.fnmatchcase(left.text, each) for each in ignored)


def _reap() -> None:
    """Wait for children that have ended, as the interpreter's modules do when they start more."""
    if (module := sys.modules.get("subprocess")) is not None:
        module._cleanup()  # noqa: SLF001  what its next Popen would do
    if (module := sys.modules.get("multiprocessing")) is not None:
        module.active_children()


def _hang(item: pytest.Item, name: str, calls: Callable[[Callable[[], None]], None]) -> None:
    """Have a method of an item called through another, until `_unhang`."""
    original = getattr(item, name)
    setattr(item, name, lambda: calls(original))


def _unhang(item: pytest.Item) -> None:
    for name in ("setup", "teardown"):
        vars(item).pop(name, None)
