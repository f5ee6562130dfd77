"""`probate demo` where there is not enough of something: a line, the mend, and nothing left."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from probate import BusyResourceError, ResourceOrchestrator
from probate.cli import demo
from probate.cli.demo import aftermath, host, printing, scenes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from probate import Process
    from probate.cli.demo.report import DemoReport

PROBATE = Path(sys.executable).with_name("probate")


def probate(
    *arguments: str, limits: dict[int, int] | None = None, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """The command, with these soft limits (getrlimit(2))."""

    def limit() -> None:
        for each, soft in (limits or {}).items():
            resource.setrlimit(each, (soft, resource.getrlimit(each)[1]))

    return subprocess.run(
        [PROBATE, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=cwd,
        env={**os.environ, **env},
        preexec_fn=limit,
    )


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for temporary files that is not too deep for the demo's sockets (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="probate-") as folder:
        yield Path(folder)


def test_what_is_left_out_is_named_once_with_the_mend(place: Path) -> None:
    """Exit 1, since not all was shown; in a line on the screen for all who lacked it."""
    ran = probate("demo", limits={resource.RLIMIT_MSGQUEUE: 0}, TMPDIR=str(place), COLUMNS="100")
    words = " ".join(ran.stdout.split())

    assert (ran.returncode, ran.stderr) == (1, "")
    assert "not here: ipc (normal, crashed, twin-1, twin-2" in words
    assert "raise it with `ulimit -q`" in words
    assert "Not all was shown; of the rest the kernel agrees" in words
    assert list(place.iterdir()) == []


def test_workers_for_whom_there_is_no_room_leave_nothing(place: Path) -> None:
    """Their pipes stayed open where their shared memory could not be made."""
    limits = {resource.RLIMIT_FSIZE: 16384}
    ran = probate("demo", "--json", limits=limits, TMPDIR=str(place))
    report = json.loads(ran.stdout)
    lacks = {each.partition(": OSError: [Errno ")[0] for each in report["remarks"]}

    assert (ran.returncode, report["is_success"], ran.stderr) == (1, False, "")
    assert "not here: all (workers)" in lacks
    assert all("raise `ulimit -f`" in each for each in report["remarks"])
    assert report["kernel"]["differences"] == []


@pytest.mark.parametrize(
    ("length", "lacking"),
    [(78, "killed hosts"), (90, "normal, crashed, twin-1, twin-2, killed hosts")],
    ids=["hosts", "all"],
)
def test_a_folder_too_deep_for_sockets_is_named_with_the_mend(
    place: Path, length: int, lacking: str
) -> None:
    """A host that was to be killed ended in a traceback; only its socket has no place there."""
    deep = place / ("d" * (length - len(str(place)) - 1))
    deep.mkdir()
    ran = probate("demo", "--json", TMPDIR=str(deep))
    report = json.loads(ran.stdout)
    (remark,) = report["remarks"]

    assert (ran.returncode, report["is_success"], ran.stderr) == (1, False, "")
    assert remark.startswith(f"not here: sockets ({lacking}): OSError: [Errno 36] ")
    assert remark.endswith("; set TMPDIR to a folder with a shorter path")
    assert (report["kernel"]["differences"], list(deep.iterdir())) == ([], [])


@pytest.mark.parametrize(
    ("limit", "option"), [(resource.RLIMIT_AS, "-v"), (resource.RLIMIT_DATA, "-d")]
)
def test_too_little_address_space_is_said_before_it_is_used(limit: int, option: str) -> None:
    """A thread that cannot say that it has started is waited for, for ever."""
    ran = probate("demo", limits={limit: 100 << 20})

    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (1, "", 1)
    assert (
        f"102400 KiB of address space are too few for its threads: raise `ulimit {option}` to"
        in (ran.stderr)
    )


def test_with_as_much_address_space_as_it_asks_for_it_works() -> None:
    """Threads do not each reserve some of their own, of which there is not enough."""
    ran = probate("demo", limits={resource.RLIMIT_AS: 256 << 20})

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may have any number of processes")
def test_without_a_thread_it_ends_in_a_line() -> None:
    """RLIMIT_NPROC is of a user, in all programs."""
    ran = probate("demo", limits={resource.RLIMIT_NPROC: 1})

    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (1, "", 1)
    assert "can't start new thread; raise `ulimit -u`" in ran.stderr


def test_a_folder_that_is_gone_is_no_hindrance(tmp_path: Path) -> None:
    """Its programs, too, start where there is one: a shell complains else."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && exec {PROBATE} demo"
    ran = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, timeout=50, check=False
    )

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(closed: str, tmp_path: Path) -> None:
    """What is opened next would get their numbers, and be written to."""
    script = f"{PROBATE} plugins --json {closed}"
    ran = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, timeout=50, check=False, cwd=tmp_path
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert (ran.stdout == "") == (">&- " in f"{closed.replace('2>&-', '')} ")


def test_a_complaint_does_not_go_where_the_answer_is_read() -> None:
    """If nobody listens to complaints, there is still the exit code."""
    ran = subprocess.run(
        ["sh", "-c", f"{PROBATE} bogus 2>&-"], capture_output=True, timeout=50, check=False
    )

    assert (ran.returncode, ran.stdout) == (2, b"")


def test_a_screen_shows_as_many_remarks_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three lines, however long one is; and how many more there are."""
    monkeypatch.setenv("COLUMNS", "40")
    words = "word " * 14

    def shown(texts: list[str]) -> list[str]:
        printing._print_some(texts, 3)
        return capsys.readouterr().out.splitlines()

    assert shown(["one", "two", "three"]) == ["  one", "  two", "  three"]
    assert shown([words, "two", "three"]) == [
        "  word word word word word word word",
        "    word word word word word word word",
        "  two",
        "  and 1 more: probate demo --verbose",
    ]
    assert shown(["one", "two", words]) == [
        "  one",
        "  two",
        "  and 1 more: probate demo --verbose",
    ]
    assert shown([words * 2])[2:] == ["    word word word word word word wo ..."]


# -- the demo in this process, with one scene ----------------------------------


def run_scene(monkeypatch: pytest.MonkeyPatch, error: Exception) -> DemoReport:
    """The report of a demo in which each process meets this error."""

    def fail(host: object, process: Process) -> None:
        raise error

    monkeypatch.setattr(scenes, "SCENES", [scenes.Scene(("callbacks",), fail, "fails")])
    return demo.run(ResourceOrchestrator().discover(only=["callbacks"]), progress=False)


def caused_by(error: OSError) -> BusyResourceError:
    busy = BusyResourceError("no reaper")
    busy.__cause__ = error
    return busy


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "raise `ulimit -n`"),
        (OSError(errno.ENOSPC, "No space left on device"), "free room in /dev/shm"),
        (OSError(errno.EROFS, "Read-only file system"), "have /dev/shm"),
        (caused_by(OSError(errno.EAGAIN, "Try again")), "raise `ulimit -u`"),
        (MemoryError(), "free memory"),
        (RuntimeError("can't start new thread"), "raise `ulimit -u`"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_shortage_is_no_success(
    monkeypatch: pytest.MonkeyPatch, error: Exception, mend: str
) -> None:
    """Somebody can mend it, and is told how."""
    report = run_scene(monkeypatch, error)

    assert not report.is_success
    assert len(report.remarks) == 1
    assert report.remarks[0].startswith("not here: callbacks (normal, crashed, twin-1, twin-2): ")
    assert f"; {mend}" in report.remarks[0]


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EPERM, "Operation not permitted"),
        OSError(errno.ENOSYS, "Function not implemented"),
        caused_by(OSError(errno.ENOSYS, "Function not implemented")),
        BusyResourceError("not here"),
    ],
    ids=["EPERM", "ENOSYS", "because of it", "ours"],
)
def test_what_a_system_does_not_have_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A sandbox without io_uring, say; it is named all the same."""
    report = run_scene(monkeypatch, error)

    assert report.is_success
    assert len(report.remarks) == 1


def test_what_should_not_be_is_a_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything may come of a lack; where it came from is there for those who ask."""
    with pytest.raises(demo.DemoError, match="cannot go on here: LookupError: unknown") as caught:
        run_scene(monkeypatch, LookupError("unknown encoding"))

    assert caught.value.__context__ is None
    assert "raise error\nLookupError: unknown encoding" in caught.value.where


def test_a_host_that_does_not_begin_has_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the line that is told; all that it has written is there for those who ask."""
    monkeypatch.setattr(scenes, "SCENES", [])
    monkeypatch.setattr(aftermath, "_PROGRAM", "raise LookupError('unknown encoding')")

    with pytest.raises(demo.DemoError, match=r"begin: LookupError: unknown encoding$") as caught:
        demo.run(ResourceOrchestrator().discover(only=["files"]), progress=False)

    assert caught.value.where.startswith("Traceback (most recent call last)")


def test_a_folder_for_temporary_files_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable that sets it."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")

    with pytest.raises(demo.DemoError, match=r"no folder can be made .*; set TMPDIR to"):
        host.Host(ResourceOrchestrator(), print)


def test_what_is_begun_is_ended_if_it_cannot_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a thread for its loop: its processes end, the loop is closed, its folder goes."""

    def fail() -> None:
        raise RuntimeError("can't start new thread")

    begun = host.Host(ResourceOrchestrator().discover(only=["callbacks"]), print)
    called: list[int] = []
    begun.manager.create_process("early").callback(called.append, 1)
    monkeypatch.setattr(begun._thread, "start", fail)

    with pytest.raises(RuntimeError), begun:
        pytest.fail("it has no loop")

    assert (called, begun.loop.is_closed(), begun.folder.exists()) == ([1], True, False)
