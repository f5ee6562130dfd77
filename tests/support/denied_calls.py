"""Has the kernel refuse system calls, as an older one or a sandbox does (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import Final

import pytest

#: By x86-64 (asm/unistd_64.h).
NUMBERS: Final = {"ioprio_set": 251, "sched_setattr": 314, "setpriority": 141, "prctl": 157}

_ARCHITECTURE: Final = 0xC000003E
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
#: BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K (linux/bpf_common.h).
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def deny(*names: str) -> None:
    """Have this thread, and all that it starts, get EPERM for these; `prctl` for option 29 and 33.

    For good: it is for a forked child. That child's programs get no more rights by exec.
    """
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of the calls are those of x86-64")
    refused = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_IF_EQUAL, 1, 0, _ARCHITECTURE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for name in names:
        code.append((_LOAD, 0, 0, _NUMBER_AT))
        if name == "prctl":
            # PR_SET_TIMERSLACK and PR_MCE_KILL.
            code += [
                (_JUMP_IF_EQUAL, 0, 4, NUMBERS[name]),
                (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
                (_JUMP_IF_EQUAL, 1, 0, 29),
                (_JUMP_IF_EQUAL, 0, 1, 33),
                refused,
            ]
        else:
            code += [(_JUMP_IF_EQUAL, 0, 1, NUMBERS[name]), refused]
    code.append((_RETURN, 0, 0, _ALLOW))
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
    program = _Program(len(code), ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    if libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
