"""Real programs that fork, daemonise, and change who they are; each runs until it is ended."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: A daemon of its own, which is nobody's child; the rest stays.
FAMILY: Final = "(setsid sleep 300 &); sleep 300 & exec sleep 300"

NODE: Final = """
const {Worker} = require('worker_threads'), {spawn} = require('child_process');
new Worker('setInterval(() => 0, 1e6)', {eval: true});
spawn('sleep', ['300'], {detached: true, stdio: 'ignore'}).unref();
setInterval(() => 0, 1e6);
"""

JAVA: Final = """
public class Family {
    public static void main(String[] words) throws Exception {
        new ProcessBuilder("setsid", "sleep", "300").start();
        new Thread(() -> { try { Thread.sleep(300000); } catch (Exception e) { } }).start();
        Thread.sleep(300000);
    }
}
"""

RUST: Final = """
use std::process::Command;
fn main() {
    Command::new("setsid").args(["sleep", "300"]).spawn().unwrap();
    Command::new("sleep").arg("300").status().unwrap();
}
"""

PERL: Final = """
use POSIX; my $pid = fork();
if (!$pid) { POSIX::setsid(); exit 0 if fork(); %ENV = (); exec '/bin/sleep', '300'; }
waitpid($pid, 0); sleep 300;
"""

MULTIPROCESSING: Final = """
import multiprocessing, sys, time
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    workers = [context.Process(target=time.sleep, args=(300,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    time.sleep(300)
"""

MAKE: Final = "all: a b c\na b c:\n\tsleep 300\n"

NGINX: Final = """
error_log stderr; pid {0}/nginx.pid; daemon off; worker_processes 2; events {{}}
http {{ access_log off; server {{ listen unix:{0}/nginx-$$; }} }}
"""


class Program(NamedTuple):
    """What is needed of the machine, and a command; `{}` in it is a folder."""

    argv: list[str]
    needs: tuple[str, ...] = ()
    #: Whether it takes long, or much, to start.
    is_heavy: bool = False
    needs_root: bool = False


def _sh(command: str, *needs: str, is_heavy: bool = False) -> Program:
    return Program(["sh", "-c", f"{command}; exec sleep 300"], needs, is_heavy)


def _login(*argv: str) -> Program:
    return Program([*argv, FAMILY], argv[:1], needs_root=True)


_ALL: Final[Mapping[str, Program]] = {
    "sh": Program(["sh", "-c", FAMILY]),
    "bash": Program(["bash", "-c", "for i in 1 2; do sleep 300 & done; coproc sleep 300; wait"]),
    "perl": Program(["perl", "-e", PERL]),
    "xargs": Program(["sh", "-c", "printf '%s\\n' 300 301 302 | xargs -P3 -n1 sleep"]),
    "make": Program(["make", "-sj3", "-f", "{}/Makefile"]),
    "flock": Program(["flock", "{}/lock", "sleep", "300"]),
    "script": Program(["script", "-qc", "sleep 300", "/dev/null"]),
    "timeout": Program(["timeout", "-k", "1", "300", "sh", "-c", FAMILY]),
    "schedulers": Program(
        ["nice", "ionice", "-c3", "chrt", "-b", "0", "taskset", "1", "sh", "-c", FAMILY],
        ("ionice", "chrt", "taskset"),
    ),
    "env -i": Program(["env", "-i", "/bin/sh", "-c", FAMILY]),
    "setpriv": Program(["setpriv", "--no-new-privs", "env", "-i", "/bin/sh", "-c", FAMILY]),
    "unshare -pf": Program(["unshare", "-pf", "sh", "-c", FAMILY], needs_root=True),
    "unshare -Ur": Program(["unshare", "-Ur", "sh", "-c", FAMILY]),
    "su -": _login("su", "-", "nobody", "-s", "/bin/sh", "-c"),
    "runuser -l": _login("runuser", "-l", "nobody", "-s", "/bin/sh", "-c"),
    "sudo": _login("sudo", "-n", "-u", "nobody", "sh", "-c"),
    "tmux": _sh("tmux -S {}/tmux-$$ -f /dev/null new-session -d 'sleep 300'", "tmux"),
    "screen": _sh("screen -dmS probate-$$ sleep 300", "screen"),
    "ssh-agent": _sh("ssh-agent -a {}/ssh-$$", "ssh-agent"),
    "gpg-agent": _sh("mkdir -m 700 {}/g$$; gpg-agent --homedir {}/g$$ --daemon", "gpg-agent"),
    "dbus-daemon": _sh("dbus-daemon --session --fork --address=unix:path={}/bus-$$", "dbus-daemon"),
    "redis": _sh(
        "redis-server --port 0 --unixsocket {}/redis-$$ --dir {} --save '' --daemonize yes",
        "redis-server",
    ),
    "git daemon": _sh("git daemon --detach --port=$((20000 + $$ % 20000)) --base-path={}", "git"),
    "openssl": Program(["sh", "-c", "sleep 300 | openssl dgst -sha256"], ("openssl",)),
    "nginx": Program(["nginx", "-p", "{}", "-c", "{}/nginx.conf"], ("nginx",)),
    "busybox": Program(["busybox", "sh", "-c", FAMILY]),
    "ruby": Program(["ruby", "-e", "Process.daemon; sleep 300"]),
    "php": Program(["php", "-r", "pcntl_fork(); sleep(300);"]),
    "parallel": Program(["parallel", "-j2", "sleep", ":::", "300", "301"]),
    "runsvdir": Program(["runsvdir", "{}/services"]),
    "ffmpeg": Program(["ffmpeg", "-f", "lavfi", "-re", "-i", "testsrc", "-f", "null", "-"]),
    "chromium": Program(["chromium", "--headless", "--no-sandbox"], is_heavy=True),
    "strace": Program(["strace", "-f", "-o", "/dev/null", "sh", "-c", FAMILY], is_heavy=True),
    "gdb": Program(["gdb", "-q", "-batch", "-ex", "run", "--args", "sleep", "300"], is_heavy=True),
    "node": Program(["node", "-e", NODE], is_heavy=True),
    "npm": Program(["npm", "exec", "-c", "sleep 300"], is_heavy=True),
    "java": Program(["java", "{}/Family.java"], is_heavy=True),
    "rustc": _sh("rustc -o {}/rust-$$ {}/family.rs && {}/rust-$$", "rustc", is_heavy=True),
    **{
        f"multiprocessing, {how}": Program(
            ["/usr/bin/python3", "{}/workers.py", how], is_heavy=True
        )
        for how in ("fork", "spawn", "forkserver")
    },
}


def programs(folder: Path, *, heavy: bool) -> tuple[dict[str, list[str]], list[str]]:
    """The commands that this machine has, by name, and the names of those that it has not."""
    for name, text in (
        ("Makefile", MAKE),
        ("Family.java", JAVA),
        ("family.rs", RUST),
        ("workers.py", MULTIPROCESSING),
        ("nginx.conf", NGINX.format(folder)),
    ):
        (folder / name).write_text(text)
    (folder / "services").mkdir()
    found, absent = {}, []
    for name, (argv, needs, is_heavy, needs_root) in _ALL.items():
        if is_heavy and not heavy:
            continue
        has_rights = os.geteuid() == 0 or not needs_root
        if has_rights and all(shutil.which(each) for each in (argv[0], *needs)):
            found[name] = [word.replace("{}", str(folder)) for word in argv]
        else:
            absent.append(name)
    return found, absent
