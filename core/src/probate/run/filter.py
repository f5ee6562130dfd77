"""The filter under which a command runs: it has the keeper asked before something is made by name.

A classic BPF program (seccomp(2), seccomp_unotify(2)), of rules that are each a block that falls
through to the next: a call that fits one is held until the keeper has answered, all others go on.
What makes nothing that outlives its maker, or ordinary files, costs nothing but the program.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, final

from probate.errors import ProbateError
from probate.system.clib import last_error, libc

if TYPE_CHECKING:
    from collections.abc import Mapping

#: IPC_CREAT, IPC_PRIVATE (bits/ipc.h), the same everywhere.
IPC_CREAT: Final = 0o1000
IPC_PRIVATE: Final = 0

#: linux/seccomp.h, linux/prctl.h.
_SET_MODE_FILTER: Final = 1
_NEW_LISTENER: Final = 1 << 3
#: Whoever waits for an answer is held up by no signal but a fatal one: Linux 5.19.
_WAIT_KILLABLE: Final = 1 << 5
_SET_NO_NEW_PRIVS: Final = 38

ALLOW: Final = 0x7FFF0000
NOTIFY: Final = 0x7FC00000

#: linux/bpf_common.h: load a word, jump if equal, mask, return.
_LOAD, _IF_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06

#: Where `struct seccomp_data` has the number, the architecture, and the low half of an argument.
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4

_ALL_BITS: Final = 0xFFFFFFFF


def _argument_at(index: int) -> int:
    return 16 + 8 * index


@final
class ObservationUnavailableError(ProbateError):
    """Raised where nobody may look on as a command makes things by name; says the way out."""


@final
class Architecture(NamedTuple):
    """How one architecture calls the kernel."""

    #: AUDIT_ARCH_*, linux/audit.h.
    audit: int
    #: Numbers by call; those that are not there do not exist on it.
    numbers: Mapping[str, int]
    #: O_NOFOLLOW, which differs.
    nofollow: int
    #: AUDIT_ARCH_* of 32-bit programs, and the calls with which each of them begins and ends.
    narrow: tuple[int, tuple[int, ...]] | None


X86_64: Final = Architecture(
    0xC000003E,
    {
        "open": 2,
        "shmget": 29,
        "bind": 49,
        "semget": 64,
        "msgget": 68,
        "mkdir": 83,
        "link": 86,
        "setsid": 112,
        "mknod": 133,
        "mq_open": 240,
        "openat": 257,
        "mkdirat": 258,
        "mknodat": 259,
        "linkat": 265,
        "seccomp": 317,
        "io_uring_setup": 425,
        "openat2": 437,
    },
    0o400000,
    # set_thread_area and exit_group of i386.
    (0x40000003, (243, 252)),
)

AARCH64: Final = Architecture(
    0xC00000B7,
    {
        "mknodat": 33,
        "mkdirat": 34,
        "linkat": 37,
        "openat": 56,
        "setsid": 157,
        "mq_open": 180,
        "msgget": 186,
        "semget": 190,
        "shmget": 194,
        "bind": 200,
        "seccomp": 277,
        "io_uring_setup": 425,
        "openat2": 437,
    },
    0o100000,
    # exit_group of 32-bit ARM: it begins with none that is its own.
    (0x40000028, (248,)),
)

_ARCHITECTURES: Final = {"x86_64": X86_64, "aarch64": AARCH64}


@final
class Rule(NamedTuple):
    """Says that a call is of interest: always, or if an argument has certain bits."""

    call: str
    argument: int | None = None
    mask: int = 0
    wanted: int = 0


def rules_of(architecture: Architecture) -> list[Rule]:
    """Return the rules, for the calls that an architecture has.

    Temporary files are opened with O_EXCL, shared memory with O_NOFOLLOW (shm_open(3)), where
    ordinary files have neither. A named semaphore is linked to its name (sem_open(3)).
    """
    rules = [
        Rule(call, argument, os.O_CREAT | bit, os.O_CREAT | bit)
        for call, argument in (("open", 1), ("openat", 2))
        for bit in (os.O_EXCL, architecture.nofollow)
    ]
    rules += [Rule(call, at, 0o170000, stat.S_IFIFO) for call, at in (("mknod", 1), ("mknodat", 2))]
    rules.append(Rule("mq_open", 1, os.O_CREAT, os.O_CREAT))
    for call, argument in (("shmget", 2), ("semget", 2), ("msgget", 1)):
        rules.append(Rule(call, 0, _ALL_BITS, IPC_PRIVATE))
        rules.append(Rule(call, argument, IPC_CREAT, IPC_CREAT))
    for call in ("link", "linkat", "mkdir", "mkdirat", "bind"):
        rules.append(Rule(call))
    # By these, something may be made unseen; or somebody leaves the session, whom it is well to
    # know; or asks for what a process under this filter cannot have.
    rules += [Rule("openat2"), Rule("io_uring_setup"), Rule("setsid")]
    rules.append(Rule("seccomp", 1, _NEW_LISTENER, _NEW_LISTENER))
    return [rule for rule in rules if rule.call in architecture.numbers]


Step = tuple[int, int, int, int]


def program(architecture: Architecture, rules: list[Rule]) -> list[Step]:
    """Return the steps of the filter: operation, jumps if true and if false, operand."""
    narrow: list[Step] = []
    if architecture.narrow is not None:
        audit, numbers = architecture.narrow
        narrow = [(_IF_EQUAL, 0, 1 + 2 * len(numbers), audit), (_LOAD, 0, 0, _NUMBER_AT)]
        for number in numbers:
            narrow += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, NOTIFY)]
    steps: list[Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_IF_EQUAL, len(narrow) + 1, 0, architecture.audit),
        *narrow,
        (_RETURN, 0, 0, ALLOW),
    ]
    for rule in rules:
        steps.append((_LOAD, 0, 0, _NUMBER_AT))
        number = architecture.numbers[rule.call]
        if rule.argument is None:
            steps.append((_IF_EQUAL, 0, 1, number))
        else:
            steps += [
                (_IF_EQUAL, 0, 4, number),
                (_LOAD, 0, 0, _argument_at(rule.argument)),
                (_AND, 0, 0, rule.mask),
                (_IF_EQUAL, 0, 1, rule.wanted),
            ]
        steps.append((_RETURN, 0, 0, NOTIFY))
    steps.append((_RETURN, 0, 0, ALLOW))
    return steps


def native() -> Architecture:
    """Return the architecture of this machine. Raises ObservationUnavailableError."""
    machine = os.uname().machine
    found = _ARCHITECTURES.get(machine)
    if found is None or struct.calcsize("P") != 8:
        raise ObservationUnavailableError(
            f"the system calls of {machine} are not known here: what the command makes "
            "by a name is not seen"
        )
    return found


def install(*, allow_setuid: bool) -> int:
    """Put this process, and all that it starts, under the filter; return the listener.

    For good: for a forked child that is about to exec. Without CAP_SYS_ADMIN its programs cannot
    become another user any more (no_new_privs), which `allow_setuid` forbids to bring about. Raises
    ObservationUnavailableError.
    """
    architecture = native()
    steps = program(architecture, rules_of(architecture))
    try:
        return _install(architecture, steps)
    except PermissionError as error:
        if allow_setuid:
            raise ObservationUnavailableError(
                "with --allow-setuid only root may look on as things are made by name: what the "
                "command makes so is not seen"
            ) from error
    except OSError as error:
        raise _unavailable(error) from error
    try:
        if libc().prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise last_error()
        return _install(architecture, steps)
    except OSError as error:
        raise _unavailable(error) from error


def _install(architecture: Architecture, steps: list[Step]) -> int:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    filter_ = struct.pack("=H6xQ", len(steps), ctypes.addressof(code))
    number = architecture.numbers["seccomp"]
    problem = errno.EINVAL
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):
        listener: int = libc().syscall(number, _SET_MODE_FILTER, flags, filter_)
        if listener >= 0:
            return listener
        if (problem := ctypes.get_errno()) != errno.EINVAL:
            break
    raise OSError(problem, os.strerror(problem))


def _unavailable(error: OSError) -> ObservationUnavailableError:
    if error.errno == errno.EBUSY:
        return ObservationUnavailableError(
            "another supervisor looks on already, and the kernel allows but one: what the command "
            "makes by a name is not seen; --observe none says that this is meant"
        )
    return ObservationUnavailableError(
        f"this kernel or sandbox lets nobody look on (seccomp: {error.strerror}): what the command "
        "makes by a name is not seen; it needs Linux 5.0 and a container that allows seccomp(2)"
    )
