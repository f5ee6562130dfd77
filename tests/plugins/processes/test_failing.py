"""What cannot be started leaves nothing: no process, zombie, descriptor, cgroup; no subreaper."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import processes_kernel as kernel
import pytest
from processes_kernel import SLEEP

from probate import KindLimits, ProcessTerminatedError, ResourceLimits, death_watch
from probate.system import is_subreaper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from probate import ProcessManager
    from probate_processes import ProcessTreeManager

pytestmark = pytest.mark.usefixtures("nothing_remains")


@pytest.fixture(autouse=True)
def nothing_left(manager: ProcessManager, mark: str) -> Iterator[None]:
    """Looked at while the manager is open, and after a good one has shown that all still works."""
    children, fds = kernel.children(), len(kernel.fds())
    yield

    assert kernel.marked(mark) == set()
    assert kernel.children() == children
    assert kernel.cgroups() == set()
    assert not is_subreaper()
    assert len(kernel.fds()) == fds
    assert manager.list_processes() == []


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    # A folder that may not be looked into would be another error.
    monkeypatch.setenv("PATH", os.defpath)
    plain, script, text = (tmp_path / name for name in ("plain", "script", "text"))
    plain.write_text("#!/bin/sh\n")
    script.write_text("#!/nonexistent/interpreter\n")
    text.write_bytes(b"\x7fELF and no more")
    script.chmod(0o755)
    text.chmod(0o755)
    return {
        "missing": ["probate-no-such-program"],
        "missing path": ["/nonexistent/program"],
        "not executable": [str(plain)],
        "a folder": [str(tmp_path)],
        "bad interpreter": [str(script)],
        "bad format": [str(text)],
        "too long": ["true", "x" * 3_000_000],
    }


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("missing", FileNotFoundError),
        ("missing path", FileNotFoundError),
        ("not executable", PermissionError),
        ("a folder", PermissionError),
        ("bad interpreter", FileNotFoundError),
        ("bad format", OSError),
        ("too long", OSError),
    ],
)
def test_what_cannot_be_executed(
    manager: ProcessManager, programs: dict[str, list[str]], name: str, error: type[OSError]
) -> None:
    """A failed exec is an error."""
    with pytest.raises(error):
        manager.spawn(programs[name])


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        ("sleep 300", TypeError),
        (b"sleep", TypeError),
        (None, TypeError),
        ([], ValueError),
        ([1], TypeError),
        (["sleep", None], TypeError),
        (["sleep", "3\0"], ValueError),
        ([b"sl\0eep"], ValueError),
        ({"sleep"}, TypeError),
        ([""], OSError),
    ],
)
def test_bad_argument_vectors(
    manager: ProcessManager, trees: ProcessTreeManager, argv: Any, error: type[Exception]
) -> None:
    """By either way in."""
    owner = manager.create_process("owner")
    with pytest.raises(error):
        manager.spawn(argv)
    with pytest.raises(error):
        trees.spawn(owner.pid, argv)
    owner.terminate()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"cwd": "/nonexistent/folder"}, FileNotFoundError),
        ({"cwd": "/dev/null"}, NotADirectoryError),
        ({"stdin": 9999}, OSError),
        ({"stdout": "a name"}, (AttributeError, TypeError)),
        ({"stderr": 9999}, OSError),
        ({"pass_fds": ["x"]}, (TypeError, ValueError)),
        ({"pass_fds": [9999]}, OSError),
        ({"env": {"A=B": "c"}}, ValueError),
        ({"env": {"A": "b\0"}}, ValueError),
        ({"env": {1: "b"}}, TypeError),
    ],
)
def test_bad_options(
    manager: ProcessManager, options: dict[str, Any], error: type[Exception]
) -> None:
    """As subprocess refuses them."""
    with pytest.raises(error):
        manager.spawn(SLEEP, **options)


def test_no_descriptors(manager: ProcessManager, trees: ProcessTreeManager) -> None:
    """At every shortage of descriptors: either it is started and owned, or nothing is."""
    owner = manager.create_process("owner")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = kernel.fds()[-1] + 1
    # Whatever is free below the highest one is taken.
    taken = []
    while (fd := os.dup(0)) < limit:
        taken.append(fd)
    os.close(fd)
    started = refused = 0
    for more in range(16):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit + more, hard))
        try:
            trees.spawn(owner.pid, SLEEP)
        except OSError:
            refused += 1

            assert owner.pid not in trees.table
        else:
            started += 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            owner_stats = trees.table.cleanup(owner.pid)

            assert owner_stats.resources_freed == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in taken:
        os.close(fd)
    owner.terminate()
    death_watch.join_if_idle()

    assert refused
    assert started


def test_a_terminated_owner_gets_nothing(
    manager: ProcessManager, trees: ProcessTreeManager
) -> None:
    """Nothing is started for it, not even for a moment."""
    owner = manager.create_process("owner")
    owner.terminate()
    with pytest.raises(ProcessTerminatedError):
        trees.spawn(owner.pid, SLEEP)


def test_limits_of_zero(manager: ProcessManager) -> None:
    """A process that may own no OS process cannot be spawned either."""
    limits = ResourceLimits(by_kind={"processes": KindLimits(max_count=0)})
    with pytest.raises(Exception, match="0 of at most 0"):
        manager.spawn(SLEEP, limits=limits)


#: A host whose hard limit leaves no room for a tag.
LIMITED_HOST = """
import resource, sys
resource.prlimit(0, 10, (1000, 1000))
from probate import ProcessManager
with ProcessManager.builder().with_grace(0).build() as manager:
    process = manager.spawn(["sh", "-c", "(setsid sleep 300 &) ; sleep 300"])
    print(process.terminate().is_success)
"""


def test_a_host_whose_limits_leave_no_room_for_tags() -> None:
    """Then the environment marks the tree, and it is started and ended all the same."""
    command = [sys.executable, "-c", LIMITED_HOST]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (done.stdout, done.stderr) == ("True\n", "")
