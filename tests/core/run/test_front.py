"""A command by `probate run` is as it is without: status, streams, descriptors, environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from runs import RUN, bare_and_run, in_shell, run

if TYPE_CHECKING:
    from pathlib import Path


@bare_and_run
@pytest.mark.parametrize("code", [0, 1, 125, 255])
def test_the_exit_status_is_the_commands(prefix: tuple[str, ...], code: int) -> None:
    """Whatever it is."""
    ran = run(prefix, "sh", "-c", f"exit {code}")

    assert (ran.returncode, ran.stdout, ran.stderr) == (code, b"", b"")


@bare_and_run
@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "USR1", "INT", "RTMIN"])
def test_a_signal_is_128_and_its_number(prefix: tuple[str, ...], name: str) -> None:
    """As a shell has it; so `$?` is the same with and without us."""
    number = getattr(signal, f"SIG{name}")
    ran = in_shell(prefix, f"ulimit -c 0; $run sh -c 'kill -{number} $$'; echo $?")

    assert ran.stdout == b"%d\n" % (128 + number)


@pytest.mark.parametrize(
    ("word", "code", "why"),
    [
        ("no-such-command", 127, "No such file or directory"),
        ("/no/such/command", 127, "No such file or directory"),
        ("", 127, "No such file or directory"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/etc", 126, "Permission denied"),
        ("/etc/passwd/x", 126, "Not a directory"),
    ],
)
def test_a_command_that_cannot_be_run_is_127_or_126(word: str, code: int, why: str) -> None:
    """As of env(1), which is asked as well."""
    ran = run(RUN, word, env={"PATH": os.defpath})

    assert ran.returncode == run((), "env", word, env={"PATH": os.defpath}).returncode == code
    assert ran.stderr.decode() == f"probate: {word}: {why}\n"


def test_the_path_is_searched_as_by_execvp(tmp_path: Path) -> None:
    """Folders in order; what may not be executed is passed over, and said if there is no other."""
    for name, mode in (("a", 0o644), ("b", 0o755)):
        (tmp_path / name).mkdir()
        script = tmp_path / name / "tool"
        script.write_text(f"#!/bin/sh\necho {name}\n")
        script.chmod(mode)
    found = run(RUN, "tool", env={"PATH": f"{tmp_path}/none:{tmp_path}/a:{tmp_path}/b:/bin"})
    denied = run(RUN, "tool", env={"PATH": f"{tmp_path}/a:/bin"})

    assert (found.returncode, found.stdout) == (0, b"b\n")
    assert denied.returncode == 126


@bare_and_run
def test_a_file_without_a_first_line_is_a_script(prefix: tuple[str, ...], tmp_path: Path) -> None:
    """As for shells and execvp(3)."""
    script = tmp_path / "script"
    script.write_text('echo "$0 $1"\n')
    script.chmod(0o755)
    ran = in_shell(prefix, f"$run {script} x; PATH={tmp_path}:$PATH; $run script y")

    assert ran.stdout.decode() == f"{script} x\n{script} y\n"


def test_bytes_come_through_as_they_are() -> None:
    """In, out and error, each of its own, and more than a pipe takes."""
    data = os.urandom(300_000)
    ran = run(RUN, "sh", "-c", "tee /dev/stderr", input=data)

    assert ran.stdout == data
    assert ran.stderr == data


@bare_and_run
def test_arguments_and_environment_come_through_as_bytes(prefix: tuple[str, ...]) -> None:
    """Also what is no text in any encoding, and without a locale, where Python sets one."""
    python = os.fsencode(sys.executable)
    program = (
        b"import os, sys; sys.stdout.buffer.write(os.environb[b'X'] + os.fsencode(sys.argv[1]))"
    )
    ran = subprocess.run(
        [*map(os.fsencode, prefix), python, b"-c", program, b"a\xff\n"],
        env={b"X": b"\xfe="},
        stdout=subprocess.PIPE,
        check=True,
    )

    assert ran.stdout == b"\xfe=a\xff\n"


def test_the_environment_is_the_same_but_for_ours() -> None:
    """Python's own LC_CTYPE, of the locale C (PEP 538), is not handed on."""
    environment = {"A": "1", "PATH": os.environ["PATH"]}
    bare, ran = (
        subprocess.run(
            [*prefix, "env"], env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.splitlines()
        for prefix in ((), RUN)
    )

    assert [line for line in ran if not line.startswith("PROBATE_")] == bare


@bare_and_run
def test_descriptors_are_handed_on_and_no_others(prefix: tuple[str, ...]) -> None:
    """What the command gets above its standard streams is what it was given."""
    ran = in_shell(prefix, "exec 7</dev/null 9</dev/null; $run ls /proc/self/fd")

    # The last is what ls looks with.
    assert ran.stdout.split() == [b"0", b"1", b"2", b"3", b"7", b"9"]


@bare_and_run
@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_closed_stream_stays_closed(prefix: tuple[str, ...], stream: int) -> None:
    """Nothing of ours is in its place."""
    sign = "<" if stream == 0 else ">"
    ran = in_shell(prefix, f"$run sh -c 'test -e /proc/self/fd/{stream}' {stream}{sign}&-")

    assert ran.returncode == 1


@bare_and_run
@pytest.mark.parametrize("ignored", [[], ["HUP", "INT", "QUIT", "CHLD", "TSTP", "USR1"]])
def test_signals_are_handed_on_as_they_were(prefix: tuple[str, ...], ignored: list[str]) -> None:
    """Ignored ones, as of nohup, stay so; what Python ignores for itself is not."""
    numbers = [getattr(signal, f"SIG{name}") for name in ignored]

    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    ran = run(prefix, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", preexec_fn=ignore)
    blocked, found = (int(line.split()[1], 16) for line in ran.stdout.splitlines())

    # The C library has some for itself, which are not for us to look at.
    valid = sum(1 << number - 1 for number in signal.valid_signals())
    assert blocked & valid == 0
    assert found & valid == sum(1 << number - 1 for number in numbers)


def test_blocked_signals_stay_blocked() -> None:
    """A mask is inherited (sigprocmask(2))."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        ran = run(RUN, "grep", "^SigBlk", "/proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    assert int(ran.stdout.split()[1], 16) == 1 << signal.SIGUSR2 - 1


@bare_and_run
def test_a_reader_that_has_enough_ends_the_command(prefix: tuple[str, ...]) -> None:
    """By SIGPIPE, as without us."""
    ran = in_shell(prefix, "{ $run yes; echo $? >&2; } | head -1")

    assert ran.stdout == b"y\n"
    assert ran.stderr == b"141\n"


@bare_and_run
@pytest.mark.parametrize("closing", ["exec >&-' 8>&-", "exec 8>&-' 8>&1 >/dev/null"])
def test_a_reader_sees_the_end_when_the_command_closes_it(
    prefix: tuple[str, ...], closing: str, tmp_path: Path
) -> None:
    """And not when it ends: we hold none of its descriptors but standard error."""
    command = closing.replace("'", "; read line <gate'")
    ran = in_shell(
        prefix, f"mkfifo gate; $run sh -c '{command} | {{ cat; echo >gate; }}", cwd=tmp_path
    )

    assert ran.returncode == 0


@bare_and_run
def test_a_writer_sees_the_end_when_the_command_closes_it(
    prefix: tuple[str, ...], tmp_path: Path
) -> None:
    """It gets SIGPIPE while the command goes on."""
    command = "sh -c 'exec <&-; read code <gate; echo $code'"
    ran = in_shell(prefix, f"mkfifo gate; {{ yes; echo $? >gate; }} | $run {command}", cwd=tmp_path)

    assert ran.stdout == b"141\n"


@bare_and_run
def test_the_folder_and_umask_are_the_same(prefix: tuple[str, ...], tmp_path: Path) -> None:
    """And so is what else a process has of its parent."""
    ran = in_shell(
        prefix, f"umask 027; cd {tmp_path}; ulimit -n 99; exec $run sh -c 'pwd; umask; ulimit -n'"
    )

    assert ran.stdout.decode().split() == [str(tmp_path), "0027", "99"]


@pytest.mark.parametrize("limit", [8, 15, 34, 35])
def test_where_descriptors_are_short_nothing_is_started_or_all_is_settled(
    tmp_path: Path, limit: int
) -> None:
    """The command had run, and what it left was there, with the status of one that never began."""
    script = f"ulimit -n {limit}; exec $run sh -c 'echo begun; mkfifo left; exit 3'"
    ran = in_shell(RUN, script, cwd=tmp_path)

    if ran.returncode == 125:
        assert ran.stdout == b""
        assert b"it takes 32 descriptors to start a command" in ran.stderr
        assert ran.stderr.endswith(b": raise `ulimit -n`\n")
    else:
        assert (ran.returncode, ran.stdout) == (3, b"begun\n")
    assert (limit >= 35) == (ran.returncode == 3)
    assert list(tmp_path.iterdir()) == []


def test_where_no_file_may_be_large_there_is_an_account_all_the_same(tmp_path: Path) -> None:
    """It was handed over in a file in memory, which the limit is for as well (getrlimit(2))."""
    script = "ulimit -f 0; exec $run sh -c 'mkfifo left; kill -9 $$'"
    ran = in_shell(RUN, script, cwd=tmp_path)

    assert ran.returncode == 128 + 9
    first, *notes = ran.stderr.decode().splitlines()
    assert first == f"probate: gave back FIFO {tmp_path}/left"
    assert [note for note in notes if "no journal can be kept" not in note] == []


@pytest.mark.parametrize(
    "script",
    [
        "$run sh -c 'mkfifo left; exit 3' 2>/dev/full; echo $?",
        "{ { $run sh -c 'sleep 0.2; mkfifo left; exit 3' 2>&4; echo $?; } 4>&1 >&3 | true; } 3>&1",
    ],
    ids=["full", "closed pipe"],
)
def test_the_status_is_the_commands_where_nobody_hears_the_account(
    tmp_path: Path, script: str
) -> None:
    """Python tried once more as it ended, and that was the status."""
    ran = in_shell(RUN, script, cwd=tmp_path)

    assert (ran.stdout, ran.stderr) == (b"3\n", b"")


def test_a_folder_for_temporary_files_may_be_relative(tmp_path: Path) -> None:
    """To where the command is, and not to where the keeper is."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    ran = in_shell(RUN, "TMPDIR=scratch exec $run sh -c 'mktemp; kill -9 $$'", cwd=tmp_path)

    assert ran.stdout.startswith(b"scratch/")
    assert list(folder.iterdir()) == []


def test_the_command_is_in_our_session_and_group() -> None:
    """The front is its parent, and the one that a shell knows."""
    with subprocess.Popen(
        [*RUN, "sh", "-c", "echo $PPID; ps -o sid=,pgid= -p $$"], stdout=subprocess.PIPE
    ) as ran:
        assert ran.stdout is not None
        parent, session, group = map(int, ran.stdout.read().split())

    assert parent == ran.pid
    assert (session, group) == (os.getsid(0), os.getpgrp())


#: A front that is killed by its child, before that is the command.
KILLED = """
import os, select, signal, sys
from probate.run.launching import Command
def kill():
    front = os.pidfd_open(os.getppid())
    signal.pidfd_send_signal(front, signal.SIGKILL)
    select.select([front], [], [])
Command.launch(["touch", sys.argv[1]], blocked=[], ignored=[], before_exec=kill)
signal.pause()
"""


def test_no_command_begins_when_the_front_is_dead(tmp_path: Path) -> None:
    """Until it has a mark, nobody would find it; so it dies with the front."""
    proof = tmp_path / "ran"
    # All who held the pipes are gone when this returns.
    ran = run((sys.executable, "-c", KILLED), proof)

    assert ran.returncode == -signal.SIGKILL
    assert not proof.exists()


#: Runs a command as `probate` does, and says what was loaded for it.
LOADED = """
import sys
sys.argv = ["probate", "run", "--", "true"]
from probate.cli import main
try:
    main()
except SystemExit:
    print(*sys.modules, file=sys.stderr)
"""


def test_no_library_of_the_command_line_is_loaded() -> None:
    """What is started through us waits for it."""
    loaded = set(run((sys.executable, "-c"), LOADED).stderr.decode().split())

    assert "probate.run.front" in loaded
    assert not loaded & {
        "click", "rich", "pydantic", "asyncio", "inspect", "dataclasses", "argparse", "psutil",
        "subprocess", "importlib.metadata", "logging", "pathlib", "lmdb",
    }  # fmt: skip
