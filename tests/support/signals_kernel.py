"""What the kernel will do with a signal, as far as it tells."""

from __future__ import annotations

from pathlib import Path

from probate_signals import sigaction


def disposition(signum: int) -> tuple[bytes, bytes, bytes]:
    """Handler, mask and flags of sigaction(2).

    glibc has room for 1024 signals in the mask and leaves what is beyond 64 uninitialised.
    """
    native = sigaction.read(signum)
    return native[:8], native[8:16], native[136:140]


def is_caught(signum: int) -> bool:
    """Whether there is a handler (SigCgt, proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
    raise AssertionError("no SigCgt in /proc/self/status")
