"""System calls that a program is refused, as by an older kernel or in a container (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

#: name_to_handle_at(2) and open_by_handle_at(2), by architecture, and what that is called.
_NUMBERS = {
    "x86_64": (0xC000003E, 303, 304),
    "aarch64": (0xC00000B7, 264, 265),
}

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def is_known() -> bool:
    """Whether this machine's system calls are."""
    return platform.machine() in _NUMBERS


def refuse_handles(*, number: int = errno.EOPNOTSUPP, to_get: bool = True) -> None:
    """Refuse this process, and what it starts, to open handles of files; also to get them."""
    architecture, get, open_ = _NUMBERS[platform.machine()]
    refused = [open_, *([get] if to_get else [])]
    steps = [(_LOAD, 0, 0, 4), (_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_LOAD, 0, 0, 0))
    for each in refused:
        steps += [(_IF_EQUAL, 0, 1, each), (_RETURN, 0, 0, _ERRNO | number)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("=H6xQ", len(steps), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _MODE_FILTER, program, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")
