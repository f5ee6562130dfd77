"""What killed earlier tools: `--probate-leaks` does not blame a test for what is not its own.

First-use caches and lazy imports, what the collector frees late of an earlier test, fixtures of a
wider scope, reruns, other plugins there or not there, and tests that are no functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from leak_sessions import run, write

if TYPE_CHECKING:
    from pathlib import Path

ACME = """
    import functools, os, socket, tempfile, threading

    class Pool:
        def __init__(self):
            self.threads = []

        def grow(self):
            thread = threading.Thread(target=threading.Event().wait, daemon=True)
            thread.start()
            self.threads.append(thread)

    class Client:
        sock = None

        def get(self):
            if self.sock is None:
                self.sock = socket.socket()

        def close(self):
            if self.sock:
                self.sock.close()

    class Slot:
        fd = None

    CONNECTION = Client()
    POOL = Pool()
    SLOT = Slot()
    FOLDER = None

    @functools.lru_cache
    def cached():
        return socket.socket()

    def number():
        SLOT.fd = SLOT.fd or os.open("/dev/zero", os.O_RDONLY)

    def folder():
        global FOLDER
        if FOLDER is None:
            import atexit, shutil
            FOLDER = tempfile.mkdtemp()
            atexit.register(shutil.rmtree, FOLDER)

    def careless():
        return socket.socket()
"""


def test_a_first_use_cache_is_its_librarys(tmp_path: Path) -> None:
    """What a module keeps from its first use on is not the first test's; what nobody keeps is."""
    write(
        tmp_path,
        acme=ACME,
        test_it="""
            import acme

            KEPT = []

            def test_attribute(): acme.CONNECTION.get()
            def test_cache(): acme.cached()
            def test_number(): acme.number()
            def test_folder(): acme.folder()
            def test_pool(): acme.POOL.grow()
            def test_tracker():
                from multiprocessing import shared_memory
                made = shared_memory.SharedMemory(create=True, size=10)
                made.close()
                made.unlink()
            def test_careless(): KEPT.append(acme.careless())
        """,
    )
    session = run(tmp_path)

    assert set(session.left) == {"test_careless"}
    assert "(by acme.py:" in session.left["test_careless"]
    assert session.counts == {"passed": 7, "error": 1}


def test_a_cache_that_never_fills_is_a_leak(tmp_path: Path) -> None:
    """What a library keeps more of with the fourth test is no cache."""
    write(
        tmp_path,
        acme=ACME,
        test_it="""
            import acme, pytest

            @pytest.mark.parametrize("number", range(5))
            def test_it(number): acme.POOL.grow()
        """,
    )

    assert set(run(tmp_path).left) == {"test_it[3]", "test_it[4]"}


def test_a_lazy_import_is_no_leak(tmp_path: Path) -> None:
    """What a module makes as it is imported stays with the module, whichever test was first."""
    write(
        tmp_path,
        lazy="""
            import socket, threading

            SOCKET = socket.socket()
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        """,
        test_it="def test_it():\n    import lazy\n",
    )

    assert run(tmp_path).counts == {"passed": 1}


def test_what_a_library_of_c_starts_once_is_no_leak(tmp_path: Path) -> None:
    """That of uvloop has one pipe for all its loops, from the first one on."""
    pytest.importorskip("uvloop")
    write(
        tmp_path,
        test_it="""
            import asyncio, uvloop

            def test_it():
                asyncio.run(asyncio.sleep(0), debug=False)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(asyncio.sleep(0))
        """,
    )

    assert run(tmp_path).counts == {"passed": 1}


def test_what_pytest_makes_for_itself_is_no_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of its temporary folders, which is there from the first `tmp_path` on."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    write(tmp_path, test_it="def test_it(tmp_path): pass\n")

    assert run(tmp_path).counts == {"passed": 1}
    assert [each.name[:10] for each in (tmp_path / "temporary").iterdir()] == ["pytest-of-"]


def test_the_garbage_of_an_earlier_test_is_nobody_elses(tmp_path: Path) -> None:
    """Neither what it frees late, nor the numbers that come free by that."""
    write(
        tmp_path,
        test_it="""
            import gc, os, signal, socket, threading, pytest

            @pytest.mark.probate_leaks(False)
            def test_earlier():
                gc.disable()
                cycle = [socket.socket(), os.fdopen(os.open("/dev/null", os.O_RDONLY))]
                cycle.append(cycle)

            def test_later():
                gc.collect()
                gc.enable()

            def test_failed():
                kept = socket.socket()
                assert not kept

            def test_after_failed():
                pass

            @pytest.mark.probate_leaks(False)
            def test_thread_of_earlier():
                global GO
                GO = threading.Event(), threading.Event(), []

                def late():
                    GO[0].wait()
                    GO[2].append(socket.socket())
                    GO[1].set()

                threading.Thread(target=late, daemon=True).start()

            def test_while_it_acquires():
                GO[0].set()
                assert GO[1].wait(10)
        """,
    )
    session = run(tmp_path)

    assert not session.left
    assert session.counts == {"passed": 5, "failed": 1}


def test_wider_fixtures_keep_what_they_have(tmp_path: Path) -> None:
    """Of session, package, module and class; made early, late, lazily, or for another parameter."""
    write(
        tmp_path,
        acme=ACME,
        test_it="""
            import signal, socket, threading, pytest
            import acme

            @pytest.fixture(scope="session")
            def server():
                with socket.create_server(("127.0.0.1", 0)) as server:
                    before = signal.signal(signal.SIGUSR1, lambda *_: None)
                    yield server
                    signal.signal(signal.SIGUSR1, before)

            @pytest.fixture(scope="module", params=[True, False])
            def handled(request):
                before = signal.getsignal(signal.SIGUSR2)
                if request.param:
                    signal.signal(signal.SIGUSR2, lambda *_: None)
                with socket.socket():
                    yield
                signal.signal(signal.SIGUSR2, before)

            @pytest.fixture(scope="session")
            def client():
                client = acme.Client()
                yield client
                client.close()

            @pytest.fixture(scope="class")
            def thread():
                over = threading.Event()
                thread = threading.Thread(target=over.wait)
                thread.start()
                yield
                over.set()
                thread.join()

            @pytest.fixture
            def own():
                with socket.socket() as own:
                    yield own

            @pytest.fixture
            def refers():
                return socket.socket()

            def test_early(server, handled, own): pass
            def test_refers(handled, refers): pass
            def test_late(request): request.getfixturevalue("thread")
            def test_lazily(client): client.get()
            def test_lazily_again(client): client.get()
            class TestClass:
                def test_one(self, thread, client): client.get()
                def test_two(self, thread, server): pass
        """,
    )

    assert run(tmp_path).counts == {"passed": 9}


def test_what_a_narrow_fixture_leaves_is_the_tests(tmp_path: Path) -> None:
    """And of those that use it only of those that do not allow it."""
    write(
        tmp_path,
        test_it="""
            import socket, pytest

            KEPT = []

            @pytest.fixture
            def careless():
                KEPT.append(socket.socket())

            def test_it(careless): pass

            @pytest.mark.probate_leaks(False)
            def test_not_judged(careless): pass

            @pytest.mark.probate_leaks(ignore=["sockets"])
            def test_kind(careless): pass

            @pytest.mark.probate_leaks(ignore="*INET STREAM*")
            def test_pattern(careless): pass

            @pytest.mark.probate_leaks(ignore=["threads", "*UNIX*"])
            def test_other(careless): pass
        """,
    )

    assert set(run(tmp_path).left) == {"test_it", "test_other"}
    assert not run(tmp_path, "-o", "probate_leaks_ignore=sockets").left


def test_tests_that_are_no_functions(tmp_path: Path) -> None:
    """Those of unittest, and doctests: judged like others, and their classes' things are not."""
    write(
        tmp_path,
        test_it="""
            import socket, unittest

            KEPT = []

            class TestCase(unittest.TestCase):
                @classmethod
                def setUpClass(cls): cls.shared = socket.socket()
                @classmethod
                def tearDownClass(cls): cls.shared.close()
                def setUp(self): self.own = socket.socket()
                def tearDown(self): self.own.close()
                def test_clean(self): pass
                def test_left(self): KEPT.append(socket.socket())

            class TestAsync(unittest.IsolatedAsyncioTestCase):
                async def test_clean_async(self): pass

            def clean():
                '''
                >>> socket.socket().close()
                '''

            def leaves():
                '''
                >>> KEPT.append(socket.socket())
                '''
        """,
    )
    session = run(tmp_path, "--doctest-modules")

    assert set(session.left) == {"TestCase.test_left", "test_it.leaves"}
    assert session.counts == {"passed": 5, "error": 2}


def test_reruns(tmp_path: Path) -> None:
    """Each run is judged: the plugin for reruns has a protocol of its own, and no leak is lost."""
    pytest.importorskip("pytest_rerunfailures")
    write(
        tmp_path,
        test_it="""
            import socket, pytest

            KEPT = []

            def test_left_each_time(): KEPT.append(socket.socket())

            def test_left_once():
                if len(KEPT) < 3:
                    KEPT.append(socket.socket())

            @pytest.mark.flaky(reruns=2)
            def test_flaky():
                KEPT.append(None)
                assert len(KEPT) > 4

            def test_clean(): pass
        """,
    )
    session = run(tmp_path, "--reruns", "1", plugins=["rerunfailures"])

    assert set(session.left) == {"test_left_each_time"}
    assert session.counts["error"] == 1
    assert session.returncode == 1


def test_a_second_run_confirms(tmp_path: Path) -> None:
    """Only with =confirm: what a test leaves the first time only, it is not failed for."""
    write(
        tmp_path,
        test_it="""
            import os, signal, socket, tempfile, pytest
            from undoing import UNDO

            RUNS, KEPT = [], []

            @pytest.fixture(scope="module")
            def shared():
                with socket.socket():
                    yield

            def test_each_time(shared):
                RUNS.append("each")
                KEPT.append(socket.socket())

            def test_once():
                RUNS.append("once")
                if RUNS.count("once") == 1:
                    KEPT.append(socket.socket())

            def test_file(tmp_path): KEPT.append(open(tmp_path / "file", "w"))

            def test_handler(): signal.signal(signal.SIGUSR1, handle)

            def handle(*_): pass

            def test_fixed_name():
                path = "/dev/shm/probate-leaks-confirm"
                open(path, "w").close()
                if not UNDO:
                    UNDO.append(lambda: os.unlink(path))

            def test_clean(): RUNS.append("clean")

            def test_last(shared): assert [RUNS.count(x) for x in ("each", "clean")] == EXPECTED

            EXPECTED = [2, 1]
        """,
    )
    session = run(tmp_path, leaks="--probate-leaks=confirm")

    assert set(session.left) == {"test_each_time", "test_file", "test_handler", "test_fixed_name"}
    assert session.counts == {"passed": 7, "error": 4}


#: Plugins of pytest itself that it can do without.
OPTIONAL = """
    cacheprovider capture debugging doctest faulthandler junitxml logging monkeypatch recwarn
    setuponly setupplan skipping stepwise threadexception tmpdir unittest unraisableexception
    warnings
""".split()  # noqa: SIM905  to be read


def test_without_other_plugins(tmp_path: Path) -> None:
    """`-p no:...`: no plugin is needed that pytest can do without."""
    write(
        tmp_path,
        test_it="""
            import socket

            KEPT = []

            def test_left(): KEPT.append(socket.socket())
            def test_clean(): pass
        """,
    )
    session = run(tmp_path, *(word for name in OPTIONAL for word in ("-p", f"no:{name}")))

    assert set(session.left) == {"test_left"}
    assert session.counts == {"passed": 2, "error": 1}
