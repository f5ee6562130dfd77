"""At a terminal, a job of a shell is the same job with `probate run` before it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import full_screen
import psutil
import pytest
import signals_seen
from processes_kernel import eventually, lives, parent, state
from runs import ISOLATED, PROBATE, RUN, bare_and_run
from shells import CTRL_BACKSLASH, CTRL_C, CTRL_D, CTRL_Z, PROMPT, Shell

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Shells with job control, without anything that a user has set up.
SHELLS = {
    "bash": ("bash", "--norc", "--noprofile", "--noediting", "-i"),
    "dash": ("dash", "-i"),
}

#: Programs that say `looking PID`, and go on.
SLEEP = "sh -c 'echo looking $$; exec sleep 100'"
CAT = "sh -c 'echo looking $$; exec cat'"
SEEN = shlex.join([sys.executable, "-S", str(Path(signals_seen.__file__))])
FULL_SCREEN = shlex.join([sys.executable, str(Path(full_screen.__file__))])


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    """An interactive shell at a terminal."""
    argv = SHELLS[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]} here")
    with Shell(*argv, cwd=tmp_path, env={}) as shell:
        yield shell


@pytest.fixture(params=[(), RUN], ids=["bare", "run"])
def run(request: pytest.FixtureRequest) -> str:
    """What stands before a command: nothing, or we."""
    return "".join(f"{shlex.quote(word)} " for word in request.param)


#: In namespaces of its own, too: all that looks from inside, where pids are others.
isolated_as_well = pytest.mark.parametrize(
    "run", [(), RUN, ISOLATED], ids=["bare", "run", "isolated"], indirect=True
)


def check_that_cat_works(shell: Shell) -> None:
    shell.type("typed\n")
    shell.until("typed\r\ntyped\r\n")
    shell.type(CTRL_D)
    shell.until(PROMPT)

    assert shell.status() == 0


# -- keys --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name"),
    [(CTRL_C, "SIGINT"), (CTRL_BACKSLASH, "SIGQUIT"), (CTRL_Z, "SIGTSTP"), ("", "SIGWINCH")],
    ids=["^C", "^backslash", "^Z", "size"],
)
def test_a_key_or_a_new_size_comes_to_the_command_once(
    shell: Shell, run: str, key: str, name: str
) -> None:
    """From the kernel, to the whole group: there is nothing to pass on."""
    os_pid = shell.start(f"{run}{SEEN}")
    if key:
        shell.type(key)
    else:
        shell.resize(30, 90)
    shell.until(f"{name}\r\n")
    os.kill(os_pid, signal.SIGRTMAX)

    assert "SIG" not in shell.until("over\r\n")


@isolated_as_well
@pytest.mark.parametrize(("key", "code"), [(CTRL_C, 130), (CTRL_BACKSLASH, 131)], ids=["C", "B"])
def test_a_key_ends_it(shell: Shell, run: str, key: str, code: int) -> None:
    """With the status that it has by itself."""
    shell.start(f"ulimit -c 0; {run}{SLEEP}")
    shell.type(key)
    shell.until(PROMPT)

    assert shell.status() == code


@isolated_as_well
def test_a_key_ends_the_loop_that_it_is_in(shell: Shell, run: str) -> None:
    """A shell goes on with what follows if it takes a program to have handled the key."""
    shell.start(f"while :; do {run}{SLEEP}; echo again; done")
    shell.type(CTRL_C)

    assert "again" not in shell.until(PROMPT)


@isolated_as_well
def test_a_program_may_take_the_key_for_itself(shell: Shell, run: str) -> None:
    """As one that asks whether it is meant: then the loop goes on, and the status is its own."""
    asking = "trap 'echo asked; exit 3' INT; echo looking $$; read x"
    shell.start(f"{run}sh -c {shlex.quote(asking)}; echo =$?=")
    shell.type(CTRL_C)

    assert "asked\r\n=3=" in shell.until(PROMPT)


# -- jobs --------------------------------------------------------------------


@isolated_as_well
def test_it_is_stopped_and_continued(shell: Shell, run: str) -> None:
    """By Ctrl-Z and fg, as often as one likes; what is typed then is the command's."""
    os_pid = shell.start(f"{run}{CAT}")
    # In namespaces of its own, who stands for it may take a while to go on after fg.
    for _ in range(1 if "isolate" in run else 3):
        shell.type(CTRL_Z)
        assert "Stopped" in shell.until(PROMPT)
        assert shell.status() == 128 + signal.SIGTSTP
        if "isolate" not in run:
            eventually(lambda: state(os_pid) == "T", "it has come to where it stops, too")
        shell.type("fg\n")
        shell.until("cat")
        # Then it is in the foreground, where the next key goes.
        shell.type("typed\n")
        shell.until("typed\r\ntyped\r\n")

    check_that_cat_works(shell)


@isolated_as_well
def test_what_goes_on_already_is_not_continued_again(shell: Shell, run: str) -> None:
    """Who continues a group has continued the command, too: then nobody else does.

    Else that comes as a full-screen program draws: what it is just writing may be lost.
    """
    shell.start(f"{run}{SEEN}")
    leader = os.tcgetpgrp(shell.terminal)
    job = (psutil.Process(leader), *psutil.Process(leader).children(recursive=True))
    # Its own pid is another one in namespaces of its own.
    command = next(each for each in job if shlex.join(each.cmdline()) == SEEN)
    command.send_signal(signal.SIGSTOP)
    assert "Stopped" in shell.until(PROMPT)
    command.send_signal(signal.SIGCONT)
    shell.until("SIGCONT\r\n")
    # As all of them are by fg, but one by one: whoever waits for another comes after that.
    for each in command.parents():
        if each in job:
            each.send_signal(signal.SIGCONT)
    # Whoever passes that on has passed on all else.
    os.kill(leader, signal.SIGRTMAX)

    assert "SIG" not in shell.until("over\r\n")


def test_it_is_stopped_by_a_signal_that_nobody_can_catch(shell: Shell, run: str) -> None:
    """The shell sees it stop, and fg continues it."""
    os.kill(shell.start(f"{run}{CAT}"), signal.SIGSTOP)
    assert "Stopped" in shell.until(PROMPT)
    assert shell.status() == 128 + signal.SIGSTOP
    shell.type("fg\n")
    shell.until("cat")

    check_that_cat_works(shell)


def is_sh_asleep(process: psutil.Process) -> bool:
    """Whether it is a `sh` that waits for something."""
    try:
        return process.name() == "sh" and process.status() == psutil.STATUS_SLEEPING
    except psutil.NoSuchProcess:
        return False


@isolated_as_well
def test_it_goes_on_in_the_background(shell: Shell, run: str, tmp_path: Path) -> None:
    """Stopped by Ctrl-Z, continued by bg, ended by `kill %1`, which tells it once."""
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "script").write_text(
        "trap 'echo told >>told' TERM; echo looking $$; until read x <gate; do :; done"
    )
    shell.start(f"{run}sh script")
    shell.type(CTRL_Z)
    shell.until(PROMPT)
    shell.run("bg")
    # A trap waits for what the shell is about to begin: it is to be in it.
    below = psutil.Process(shell.shell.pid)
    eventually(lambda: any(map(is_sh_asleep, below.children(recursive=True))), "it waits there")
    shell.run("kill %1")
    eventually((tmp_path / "told").exists, "the signal has come")
    (tmp_path / "gate").write_text("\n")
    shell.run("wait")

    assert (tmp_path / "told").read_text() == "told\n"


@isolated_as_well
def test_it_may_not_read_from_the_background(shell: Shell, run: str) -> None:
    """It is stopped (SIGTTIN) until it is in the foreground."""
    shell.run(f"{run}cat &")
    eventually(lambda: "Stopped" in shell.run("jobs"), "it is stopped")
    shell.type("fg\n")
    shell.until("cat\r\n")

    check_that_cat_works(shell)


def test_it_may_not_write_from_the_background(shell: Shell, run: str) -> None:
    """Where the terminal is set so (SIGTTOU, tostop of stty(1))."""
    shell.run("stty tostop")
    shell.run(f"{run}echo written &")
    eventually(lambda: "Stopped" in shell.run("jobs"), "it is stopped")
    shell.type("fg\n")
    shell.until("\r\nwritten\r\n")
    shell.until(PROMPT)

    assert shell.status() == 0


@isolated_as_well
def test_a_pipeline_is_one_job(shell: Shell, run: str) -> None:
    """Each of its programs may read from the terminal, and all are stopped and continued."""
    last = "sh -c 'read x; echo looking $$; read x </dev/tty; echo got-$x; read x </dev/tty'"
    shell.start(f"{run}sh -c 'echo; exec sleep 100' | {run}{last}")
    shell.type(CTRL_Z)
    assert "Stopped" in shell.until(PROMPT)
    shell.type("fg\ntyped\n")
    shell.until("got-typed")
    shell.type(CTRL_C)
    shell.until(PROMPT)

    assert shell.status() == 130


def test_an_account_comes_from_the_background(shell: Shell) -> None:
    """Also where the terminal is set to stop who writes: it is told, and we end."""
    shell.run("stty tostop")
    shell.run(f"{shlex.join(RUN)} sh -c 'sleep 100 & exit 3' &")
    shell.type("wait $!; echo =$?=\n")
    shell.until("probate: gave back OS process")
    shell.until("=3=")


# -- the screen --------------------------------------------------------------


def test_a_program_takes_the_whole_screen(shell: Shell, run: str) -> None:
    """It sees keys at once, and new sizes; is stopped and continued; and leaves all as it was."""
    before = shell.modes()
    os_pid = shell.start(f"{run}{FULL_SCREEN}", before="40x100 ")
    await_key(os_pid)
    assert shell.modes() != before
    shell.resize(30, 90)
    shell.until("30x90 ")
    await_key(os_pid)
    shell.type(CTRL_Z)
    shell.until(PROMPT)
    assert shell.modes() == before
    shell.type("fg\n")
    shell.until("30x90 ")
    shell.type("q")
    shell.until(PROMPT)

    assert shell.status() == 0
    assert shell.modes() == before


def await_key(os_pid: int) -> None:
    """Wait until a program waits: curses ignores some signals, and misses others, as it draws."""
    eventually(lambda: state(os_pid) == "S", "it waits for a key")


@isolated_as_well
def test_an_editor(shell: Shell, run: str, tmp_path: Path) -> None:
    """It stops its whole group, and not only itself."""
    if shutil.which("vi") is None:
        pytest.skip("no vi here")
    text = tmp_path / "text"
    text.write_text("what was there\n")
    shell.type(f"{run}vi -u NONE text\n")
    shell.until("what was there")
    shell.type(CTRL_Z)
    shell.until(PROMPT)
    shell.type("fg\n")
    shell.until("what was there")
    shell.type("ccfound\x1b:wq\n")
    shell.until(PROMPT)

    assert shell.status() == 0
    assert text.read_text() == "found\n"


@pytest.mark.parametrize(
    ("shell", "run"), [("bash", ()), ("bash", RUN), ("dash", RUN)], indirect=True, ids=str
)
def test_what_was_killed_leaves_the_terminal_as_it_was(shell: Shell, run: str) -> None:
    """As bash has it, for whatever it runs; we do, for whatever shell."""
    before = shell.modes()
    os_pid = shell.start(f"{run}{FULL_SCREEN}", before="40x100 ")
    os.kill(os_pid, signal.SIGKILL)
    shell.until(PROMPT)

    assert shell.modes() == before
    assert shell.status() == 128 + signal.SIGKILL


def test_what_it_sets_and_ends_stays_set(shell: Shell, run: str) -> None:
    """As stty(1) does."""
    shell.run(f"{run}stty -echoctl")

    assert "-echoctl" in shell.run("stty -a")


def test_an_interactive_shell_in_it(shell: Shell, run: str) -> None:
    """With jobs of its own, which take the terminal from it, and give it back."""
    shell.type(f"{run}sh -i\n")
    shell.until(PROMPT)
    shell.start(CAT)
    shell.type(CTRL_Z)
    shell.until(PROMPT)
    assert "Stopped" in shell.run("jobs")
    shell.type("fg\n")
    shell.until("cat")
    shell.type("typed\n")
    shell.until("typed\r\ntyped\r\n")
    shell.type(CTRL_C)
    shell.until(PROMPT)
    assert shell.status() == 130
    shell.type("exit 5\n")
    shell.until(PROMPT)

    assert shell.status() == 5


# -- its end -----------------------------------------------------------------


def test_the_terminal_closes(shell: Shell, run: str) -> None:
    """The command ends of it (SIGHUP), and we with it."""
    everyone = [shell.start(f"{run}{SLEEP}")]
    everyone += [parent(everyone[0])] if run else []
    shell.hang_up()

    eventually(lambda: not any(map(lives, everyone)), "all are gone")


@pytest.mark.parametrize("line", ["nohup {run}{it}", "{run}nohup {it}"], ids=["before", "behind"])
def test_the_terminal_closes_on_what_does_not_care(
    shell: Shell, run: str, line: str, tmp_path: Path
) -> None:
    """With nohup(1), before us or behind us, it goes on to its end."""
    os.mkfifo(tmp_path / "gate")
    it = "sh -c 'echo looking $$ >/dev/tty; read x <gate; echo over >over'"
    shell.start(line.format(run=run, it=it))
    shell.hang_up()
    shell.shell.wait()
    (tmp_path / "gate").write_text("\n")

    eventually((tmp_path / "over").exists, "it went on")


@bare_and_run
def test_no_shell_looks_after_it(prefix: tuple[str, ...], tmp_path: Path) -> None:
    """A group that nobody could continue is stopped by no key (an orphaned one: POSIX 11.1.4)."""
    cat = ("sh", "-c", f"printf '{PROMPT}'; exec cat")
    with Shell(*prefix, *cat, cwd=tmp_path, env={}) as started:
        started.type(CTRL_Z)
        started.type("typed\n")
        started.until("typed\r\ntyped\r\n")
        started.type(CTRL_D)

        assert started.shell.wait(30) == 0


@bare_and_run
def test_we_lead_the_session(prefix: tuple[str, ...], tmp_path: Path) -> None:
    """As of `ssh -t`, or script(1): when the terminal closes, jobs of the command are told."""
    with Shell(*prefix, *SHELLS["bash"], cwd=tmp_path, env={}) as started:
        os_pid = started.start(SLEEP)
        started.hang_up()
        eventually(lambda: not lives(os_pid), "the job of the shell has ended")
        started.shell.wait(30)


def test_a_program_of_its_own_session() -> None:
    """It has no terminal, and no group of ours: it is waited for all the same."""
    ran = subprocess.run(
        [PROBATE, "run", "setsid", "-w", "sh", "-c", "exit 7"], check=False, timeout=30
    )

    assert ran.returncode == 7
