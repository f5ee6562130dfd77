"""The command's own process: forked, and become the command as if nobody stood in between."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from typing import TYPE_CHECKING, Final, NoReturn, final

from probate.system.clib import libc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: What env(1) and the shells exit with for a command that there is not, or cannot be run.
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126

#: And timeout(1) and others, when it is they who failed.
NOT_STARTED: Final = 125

#: PR_SET_PDEATHSIG (prctl(2)).
_SET_PDEATHSIG: Final = 1

#: What Python ignores from its start on (the documentation of `signal`), and commands do not.
IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)


@final
class Command:
    """A child of ours that is the command, or is about to be."""

    __slots__ = ("_failure", "os_pid", "pidfd")

    def __init__(self, os_pid: int, failure: int) -> None:
        self.os_pid: Final = os_pid
        # Nobody has waited for it yet: the number is its own.
        self.pidfd: Final = os.pidfd_open(os_pid)
        self._failure: Final = failure

    @classmethod
    def launch(
        cls,
        argv: Sequence[str],
        *,
        blocked: Iterable[int],
        ignored: Iterable[int],
        before_exec: Callable[[], object],
    ) -> Command:
        """Start a command with these signals blocked and ignored. Raises OSError.

        `before_exec` is called in the child, with all signals blocked; what it raises is what the
        command could not be run for.
        """
        reader, writer = os.pipe()
        front = os.getpid()
        os_pid = os.fork()
        if os_pid == 0:
            _die_with(front)
            _become(argv, writer, blocked, ignored, before_exec)
        os.close(writer)
        os.set_blocking(reader, False)
        return cls(os_pid, reader)

    @property
    def failure(self) -> str:
        """Why it has ended without having become the command; empty if it became it."""
        try:
            return os.read(self._failure, 1 << 12).decode(errors="replace")
        except BlockingIOError:
            # A child that it has forked meanwhile holds it open.
            return ""


def _die_with(front: int) -> None:
    """End when the front is killed: until it has a mark, the command would not be found."""
    libc().prctl(_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != front:
        os._exit(NOT_STARTED)


def _become(
    argv: Sequence[str],
    failure: int,
    blocked: Iterable[int],
    ignored: Iterable[int],
    before_exec: Callable[[], object],
) -> NoReturn:
    code = NOT_STARTED
    try:
        before_exec()
        # It bears the mark of the run by now, by which it is found.
        libc().prctl(_SET_PDEATHSIG, ctypes.c_ulong(0), 0, 0, 0)
        code = NOT_EXECUTABLE
        remove_coerced_locale()
        for number in (*IGNORED_BY_PYTHON, signal.SIGINT, signal.SIGCHLD):
            is_ignored = number in ignored
            signal.signal(number, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        execute(argv)
    except OSError as error:
        if error.errno == errno.ENOENT:
            code = NOT_FOUND
        os.write(failure, f"{argv[0]}: {error.strerror}".encode(errors="surrogateescape"))
    except BaseException as error:
        os.write(failure, f"{argv[0]}: {type(error).__name__}: {error}".encode(errors="replace"))
    finally:
        os._exit(code)


def execute(argv: Sequence[str]) -> NoReturn:
    """Become a command as execvp(3) does: what is in no known format is a script of the shell's.

    Python's own does not know that. Raises OSError.
    """
    name = argv[0]
    if "/" in name:
        _execute_file(name, argv)
    denied = None
    for folder in os.get_exec_path() if name else []:
        try:
            _execute_file(f"{folder or '.'}/{name}", argv)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
    raise denied or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _execute_file(path: str, argv: Sequence[str]) -> NoReturn:
    try:
        os.execv(path, list(argv))  # noqa: S606  it is what is to be run
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        os.execv("/bin/sh", ["sh", path, *argv[1:]])  # noqa: S606  as execvp(3) has it


def remove_coerced_locale() -> None:
    """Take out LC_CTYPE if Python has put it there, for a locale that is none (PEP 538)."""
    if "LC_CTYPE" in os.environ:
        with open("/proc/self/environ", "rb") as file:
            if not any(each.startswith(b"LC_CTYPE=") for each in file.read().split(b"\0")):
                del os.environ["LC_CTYPE"]
