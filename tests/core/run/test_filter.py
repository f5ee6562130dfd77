"""The filter asks about what makes things by name, and about nothing else: each rule for itself."""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING

import pytest

from probate.run.filter import AARCH64, ALLOW, NOTIFY, X86_64, Architecture, program, rules_of

if TYPE_CHECKING:
    from collections.abc import Callable

ARCHITECTURES = pytest.mark.parametrize(
    "architecture", [pytest.param(X86_64, id="x86_64"), pytest.param(AARCH64, id="aarch64")]
)


def run(steps: list[tuple[int, int, int, int]], data: bytes) -> int:
    """Interpret a classic BPF program, as far as filters use it (linux/filter.h)."""
    accumulator = at = 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif code == 0x15:
            at += if_true if accumulator == operand else if_false
        elif code == 0x54:
            accumulator &= operand
        else:
            assert code == 0x06
            return operand


def asks(architecture: Architecture, call: str, *arguments: int) -> bool:
    """Whether a call with these arguments, the high halves of which say nothing, is held."""
    return asks_by_number(architecture, architecture.numbers[call], *arguments)


def asks_by_number(
    architecture: Architecture, number: int, *arguments: int, audit: int | None = None
) -> bool:
    filled = [each | 0xDEAD << 32 for each in (*arguments, *[0xFFFF] * 6)[:6]]
    data = struct.pack("=IIQ6Q", number, audit or architecture.audit, 0, *filled)
    answer = run(program(architecture, rules_of(architecture)), data)
    assert answer in {ALLOW, NOTIFY}
    return answer == NOTIFY


CREATE, EXCLUSIVE = os.O_CREAT, os.O_EXCL
FIFO, FILE = stat.S_IFIFO | 0o600, stat.S_IFREG | 0o600
IPC_CREAT, KEY = 0o1000, 0x1234

#: What is held and what goes on: call, and arguments by the architecture.
CALLS: list[tuple[bool, str, Callable[[Architecture], tuple[int, ...]]]] = [
    (True, "open", lambda _: (0, CREATE | EXCLUSIVE | os.O_RDWR)),
    (True, "open", lambda arch: (0, CREATE | arch.nofollow | os.O_CLOEXEC)),
    (False, "open", lambda _: (0, CREATE | os.O_TRUNC)),
    (False, "open", lambda arch: (0, EXCLUSIVE | arch.nofollow)),
    (True, "openat", lambda _: (0, 0, CREATE | EXCLUSIVE | os.O_RDWR)),
    (True, "openat", lambda arch: (0, 0, CREATE | arch.nofollow | os.O_CLOEXEC)),
    (False, "openat", lambda _: (0, CREATE | EXCLUSIVE, CREATE | os.O_TRUNC)),
    (False, "openat", lambda arch: (0, 0, EXCLUSIVE | arch.nofollow)),
    (True, "openat2", lambda _: ()),
    (True, "mknod", lambda _: (0, FIFO)),
    (False, "mknod", lambda _: (0, FILE)),
    (False, "mknod", lambda _: (0, stat.S_IFCHR | 0o600)),
    (True, "mknodat", lambda _: (0, 0, FIFO)),
    (False, "mknodat", lambda _: (0, FIFO, FILE)),
    (True, "mq_open", lambda _: (0, CREATE)),
    (False, "mq_open", lambda _: (0, os.O_RDWR)),
    (True, "shmget", lambda _: (0, 4096, 0)),
    (True, "shmget", lambda _: (KEY, 4096, IPC_CREAT | 0o600)),
    (False, "shmget", lambda _: (KEY, IPC_CREAT, 0o600)),
    (True, "semget", lambda _: (0, 1, 0)),
    (True, "semget", lambda _: (KEY, 1, IPC_CREAT | 0o600)),
    (False, "semget", lambda _: (KEY, IPC_CREAT, 0o600)),
    (True, "msgget", lambda _: (0, 0)),
    (True, "msgget", lambda _: (KEY, IPC_CREAT | 0o600)),
    (False, "msgget", lambda _: (KEY, 0o600, IPC_CREAT)),
    (True, "link", lambda _: ()),
    (True, "linkat", lambda _: ()),
    (True, "mkdir", lambda _: ()),
    (True, "mkdirat", lambda _: ()),
    (True, "bind", lambda _: ()),
    (True, "setsid", lambda _: ()),
    (True, "io_uring_setup", lambda _: ()),
    (True, "seccomp", lambda _: (1, 1 << 3 | 1)),
    (False, "seccomp", lambda _: (1, 1)),
]


@ARCHITECTURES
@pytest.mark.parametrize(("is_held", "call", "arguments"), CALLS)
def test_each_rule_holds_what_it_is_for(
    architecture: Architecture,
    is_held: bool,
    call: str,
    arguments: Callable[[Architecture], tuple[int, ...]],
) -> None:
    if call not in architecture.numbers:
        pytest.skip("this architecture has no such call")
    assert asks(architecture, call, *arguments(architecture)) is is_held


@ARCHITECTURES
def test_no_rule_is_missed_by_these_tests(architecture: Architecture) -> None:
    """Without any one of the rules, a call that is to be held goes on."""
    held = [(call, arguments) for is_held, call, arguments in CALLS if is_held]
    rules = rules_of(architecture)
    for left_out in rules:
        steps = program(architecture, [rule for rule in rules if rule is not left_out])
        answers = {
            run(
                steps,
                struct.pack(
                    "=IIQ6Q",
                    architecture.numbers[call],
                    architecture.audit,
                    0,
                    *(*arguments(architecture), *[0xFFFF] * 6)[:6],
                ),
            )
            for call, arguments in held
            if call in architecture.numbers
        }
        assert ALLOW in answers, left_out


@ARCHITECTURES
def test_all_other_calls_go_on(architecture: Architecture) -> None:
    others = set(range(600)) - set(architecture.numbers.values())
    assert not any(asks_by_number(architecture, number, 0, 0, 0) for number in others)


@ARCHITECTURES
def test_of_a_program_of_another_width_only_one_call_is_held(architecture: Architecture) -> None:
    """By that it is known that there was one, whose creations are not seen."""
    assert architecture.narrow is not None
    audit, numbers = architecture.narrow
    held = {n for n in range(600) if asks_by_number(architecture, n, 0, 0, 0, audit=audit)}
    assert held == set(numbers)
    assert not asks_by_number(architecture, architecture.numbers["bind"], audit=0x1234)
