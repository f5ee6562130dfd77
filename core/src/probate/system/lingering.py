"""SO_LINGER (socket(7)): a close(2) that waits until all is sent, even of what does not block."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

from probate.system.clib import libc
from probate.system.sharing import sharers_of

#: `struct linger { off, 0 seconds }`: close returns at once, and the kernel goes on sending.
_SEND_IN_BACKGROUND: Final = struct.pack("ii", 0, 0)

_SIZE: Final = len(_SEND_IN_BACKGROUND)


def close_at_once(number: int) -> None:
    """Have the close of a socket return at once, with the kernel sending on what is left.

    For a socket that is about to be closed by its number. One that others share stays as it is:
    the last of them to close it waits, as they have asked for. One that is to be reset (on, with 0
    seconds) waits for nobody.
    """
    value = ctypes.create_string_buffer(_SIZE)
    length = ctypes.c_uint32(_SIZE)
    arguments = (number, socket.SOL_SOCKET, socket.SO_LINGER)
    if libc().getsockopt(*arguments, value, ctypes.byref(length)) == 0:
        lingers, seconds = struct.unpack("ii", value.raw)
        if lingers and seconds and not sharers_of(number):
            libc().setsockopt(*arguments, _SEND_IN_BACKGROUND, _SIZE)
