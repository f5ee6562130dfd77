"""Signals of this process: checked, kept over a fork by their handlers, and default actions."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Final, final

from probate.system.arguments import checked_int
from probate.system.interrupts import is_main_thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: What asks a program to end; not all of them are there on every system.
DEFAULT_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)
)

#: Signals that no program can handle (signal(7)).
_UNCATCHABLE: Final = ("SIGKILL", "SIGSTOP")
#: Signals whose default action leaves a program alive.
_HARMLESS: Final = ("SIGCHLD", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH")


def checked_signals(numbers: Iterable[object]) -> tuple[int, ...]:
    """Return each signal number once. Raises TypeError or ValueError for what is none to handle."""
    found: dict[int, None] = {}
    for each in numbers:
        number = checked_int("a signal's number, such as signal.SIGTERM,", each)
        if number not in signal.valid_signals():
            raise ValueError(f"{number} is no signal number here")
        name = _name_of(number)
        if name in _UNCATCHABLE:
            raise ValueError(f"{name} cannot be handled by any program")
        if name in _HARMLESS:
            raise ValueError(f"{name} ends no program, unless that handles it so")
        found[number] = None
    return tuple(found)


def _name_of(number: int) -> str:
    """Name a signal; a real-time one but the first and the last has a number only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def check_installable(numbers: Sequence[int]) -> None:
    """Raise RuntimeError if these signals cannot be handled: from here, or at all."""
    if numbers and not is_main_thread():
        raise RuntimeError(
            "with_signals() needs the main thread, where alone Python sets signal handlers: build "
            "the manager there, or without it"
        )
    for number in numbers:
        if signal.getsignal(number) is None:
            raise RuntimeError(
                f"signal {number} is handled by C code, which Python can neither call nor put "
                "back: leave it out of with_signals()"
            )


def take_default_action(number: int) -> None:
    """End this process by a signal whose default action does that, on whichever thread."""
    import ctypes

    # Python's own asks for the main thread.
    ctypes.CDLL(None).signal(number, None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    signal.raise_signal(number)
    if os.getpid() == 1:
        # The init process of a container gets no default action (pid_namespaces(7)).
        os._exit(128 + number)


@final
class _ForkGuard:
    """Blocks signals while their handlers are copied to a forked child, which gives them back.

    What the child gets before that would be lost: Python forgets there which signals have arrived.
    """

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._masks = threading.local()

    def add(self, number: int) -> None:
        """Block this one from now on."""
        if not self._numbers and hasattr(os, "register_at_fork"):
            # Children give the signals back by what was registered before, and so is called first.
            os.register_at_fork(
                before=self._block, after_in_parent=self._restore, after_in_child=self._restore
            )
        self._numbers.add(number)

    def _block(self) -> None:
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def _restore(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)


#: The one of this process.
fork_guard: Final = _ForkGuard()
