"""The pytest plugin: off until asked for, in the ways there are to ask, and its fixtures."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import posix_ipc
import pytest
from core_scripts import run_script
from leak_sessions import run, write

if TYPE_CHECKING:
    from pathlib import Path

LEAVES = """
    import socket, sys, pytest

    KEPT = []

    def test_left():
        KEPT.append(socket.socket())
"""


def test_it_is_off_until_asked_for(tmp_path: Path) -> None:
    """Installed, it imports nothing of Probate's but itself, and judges nobody."""
    write(
        tmp_path,
        test_it="""
            import socket, sys

            KEPT = []

            def test_left():
                KEPT.append(socket.socket())
                assert "probate.testing.plugin" in sys.modules
                assert "probate.testing.leaks" not in sys.modules
                assert "psutil" not in sys.modules
                assert "pydantic" not in sys.modules
        """,
    )

    assert run(tmp_path, leaks="").counts == {"passed": 1}


def test_its_import_is_light() -> None:
    """What pytest has imported is nearly all it takes: a start is slower by nothing to speak of."""
    script = run_script(
        "import sys, pytest; before = set(sys.modules); import probate.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    imported = script.stdout.split()

    assert "probate.testing.plugin" in imported
    assert all(name.startswith("probate") for name in imported)
    assert len(imported) <= 5, imported


@pytest.mark.parametrize(
    "arguments",
    [
        ["--probate-leaks"],
        ["--probate-leaks", "test_it.py"],
        ["test_it.py", "--probate-leaks"],
        ["--probate-leaks=confirm", "test_it.py"],
        ["-o", "probate_leaks=true"],
        ["-o", "probate_leaks=confirm"],
    ],
    ids=" ".join,
)
def test_ways_to_ask(arguments: list[str], tmp_path: Path) -> None:
    """An option, before or after paths, and a setting."""
    write(tmp_path, test_it=LEAVES)
    session = run(tmp_path, *arguments, leaks="")

    assert set(session.left) == {"test_left"}
    assert "probate: tests fail that leave something behind" in session.output


def test_the_command_line_wins(tmp_path: Path) -> None:
    """Over a setting, which may say no as well."""
    write(tmp_path, test_it=LEAVES)
    (tmp_path / "pytest.ini").write_text("[pytest]\nprobate_leaks = false\n")

    assert not run(tmp_path, leaks="").left
    assert run(tmp_path).left


def test_a_setting_that_is_none_is_refused(tmp_path: Path) -> None:
    """With its value, and those that there are."""
    write(tmp_path, test_it=LEAVES)
    session = run(tmp_path, "-o", "probate_leaks=maybe", leaks="")

    assert session.returncode == pytest.ExitCode.USAGE_ERROR
    assert "probate_leaks is 'maybe', and not true, false or confirm" in session.output


def test_a_marker_alone_asks(tmp_path: Path) -> None:
    """For its own test, class or module; it is known under --strict-markers, too."""
    write(
        tmp_path,
        test_it="""
            import socket, pytest

            KEPT = []

            @pytest.mark.probate_leaks
            def test_marked(): KEPT.append(socket.socket())

            def test_unmarked(): KEPT.append(socket.socket())

            @pytest.mark.probate_leaks
            class TestClass:
                def test_in_class(self): KEPT.append(socket.socket())
                @pytest.mark.probate_leaks(False)
                def test_excepted(self): KEPT.append(socket.socket())
        """,
    )

    left = run(tmp_path, "--strict-markers", leaks="").left
    assert set(left) == {"test_marked", "TestClass.test_in_class"}


def test_its_fixtures(tmp_path: Path) -> None:
    """A manager of all kinds, and a process; what that owns at the test's end is given back."""
    write(
        tmp_path,
        test_it="""
            import socket
            from probate import Process, ProcessManager, ResourceOrchestrator

            ADOPTED = []

            def test_it(orchestrator, process_manager, process):
                assert isinstance(orchestrator, ResourceOrchestrator)
                assert isinstance(process_manager, ProcessManager)
                assert process_manager.orchestrator is orchestrator
                assert isinstance(process, Process)
                assert process.name == "test_it"
                ADOPTED.append(socket.socket())
                process.adopt(ADOPTED[0])
                orchestrator["memory"].manager.create_shared_memory(process.pid, size=10)
                process_manager.spawn(["sleep", "50"])

            def test_after():
                assert ADOPTED[0].fileno() == -1
        """,
    )

    session = run(tmp_path)
    assert session.counts == {"passed": 2}, session.output


def test_all_is_as_it_was_after_a_session(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrapped meanwhile is put back; two sessions in one process do not see each other."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    before = (os.pipe, threading.Thread.start, posix_ipc.Semaphore)
    pytester.makepyfile(
        """
        import os, threading, posix_ipc

        def test_it():
            assert (os.pipe, threading.Thread.start, posix_ipc.Semaphore) != BEFORE
            semaphore = posix_ipc.Semaphore(None, posix_ipc.O_CREX)
            semaphore.unlink()
            semaphore.close()
            assert isinstance(semaphore, posix_ipc.Semaphore)
            assert isinstance(semaphore, BEFORE[2])
            assert BEFORE[2].__name__ == posix_ipc.Semaphore.__name__ == type(semaphore).__name__

        def test_left():
            KEPT.extend(os.pipe())
        """
    )
    kept: list[int] = []
    pytester.makeconftest("")

    class Names:
        @staticmethod
        def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
            vars(items[0].module).update(BEFORE=before, KEPT=kept)

    for _ in range(2):
        result = pytester.runpytest_inprocess(
            "--probate-leaks", "-p", "probate", plugins=[Names()], syspathinsert=False
        )
        for fd in kept:
            os.close(fd)
        kept.clear()

        result.assert_outcomes(passed=2, errors=1)
        assert (os.pipe, threading.Thread.start, posix_ipc.Semaphore) == before


ASYNC = """
    import asyncio, pytest
    {imports}

    KEPT = []

    async def serve(reader, writer):
        writer.close()

    async def connect(server):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.close()
        await writer.wait_closed()

    @{fixture}
    async def server():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            yield server

    @{module_fixture}
    async def shared({backend}):
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            yield server

    @{mark}
    async def test_clean():
        await asyncio.to_thread(int)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))

    @{mark}
    async def test_server(server): await connect(server)

    @{module_mark}
    async def test_shared(shared): await connect(shared)

    @{mark}
    async def test_task():
        KEPT.append(asyncio.create_task(asyncio.sleep(100), name="left"))

    @{module_mark}
    async def test_shared_task(shared):
        KEPT.append(asyncio.create_task(asyncio.sleep(100), name="left"))

    @{mark}
    async def test_socket():
        KEPT.append(await asyncio.start_server(serve, "127.0.0.1", 0))

    def test_run():
        async def main(): KEPT.append(asyncio.create_task(asyncio.sleep(100)))
        asyncio.run(main())
"""

MODES = {
    "asyncio": {
        "imports": "import pytest_asyncio",
        "fixture": "pytest_asyncio.fixture",
        "module_fixture": "pytest_asyncio.fixture(scope='module', loop_scope='module')",
        "mark": "pytest.mark.asyncio",
        "module_mark": "pytest.mark.asyncio(loop_scope='module')",
        "backend": "",
    },
    "anyio": {
        "imports": """
    @pytest.fixture(scope="module")
    def anyio_backend(): return "asyncio"
    """,
        "fixture": "pytest.fixture",
        "module_fixture": "pytest.fixture(scope='module')",
        "mark": "pytest.mark.anyio",
        "module_mark": "pytest.mark.anyio",
        "backend": "anyio_backend",
    },
}


@pytest.mark.parametrize("mode", MODES)
def test_tests_that_are_coroutines(mode: str, tmp_path: Path) -> None:
    """Their loops and threads are their plugins'; tasks and sockets that they leave are theirs."""
    pytest.importorskip({"asyncio": "pytest_asyncio"}.get(mode, mode))
    write(tmp_path, test_it=ASYNC.format(**MODES[mode]))
    session = run(tmp_path, "-W", "ignore", plugins=[mode])

    assert set(session.left) == {"test_task", "test_shared_task", "test_socket"}
    assert "asyncio task 'left' of sleep" in session.left["test_task"]
    assert session.counts == {"passed": 7, "error": 3}


def test_tests_on_trio(tmp_path: Path) -> None:
    """Its threads are kept for a while by a cache of its own; its sockets are the tests'."""
    pytest.importorskip("trio")
    write(
        tmp_path,
        test_it="""
            import anyio, pytest, trio

            KEPT = []

            @pytest.fixture
            def anyio_backend(): return "trio"

            @pytest.mark.anyio
            async def test_thread(): await trio.to_thread.run_sync(int)

            @pytest.mark.anyio
            async def test_socket(): KEPT.extend(await trio.open_tcp_listeners(0))

            def test_run(): trio.run(trio.to_thread.run_sync, int)
        """,
    )
    session = run(tmp_path, plugins=["anyio"])

    assert set(session.left) == {"test_socket"}
    assert session.counts == {"passed": 3, "error": 1}
