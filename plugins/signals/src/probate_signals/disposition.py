"""What a signal did before us, kept so that it can be honoured and put back."""

from __future__ import annotations

# What `signal` wraps: past its enums, which take longer than all the rest.
import _signal  # type: ignore[import-not-found]  # typeshed has no stub for it
import os
import signal
from typing import TYPE_CHECKING, Final, final

from probate_signals import sigaction

if TYPE_CHECKING:
    from types import FrameType

    from probate_signals.delivery import HandlerFunction

_CONSTANTS: Final = frozenset({_signal.SIG_DFL, _signal.SIG_IGN})


@final
class Disposition:
    """One signal's present disposition, as Python has it and as the kernel has it.

    They differ where C code has installed a handler, of which Python knows nothing, or only that
    there is one (None). The kernel's word is the one that counts. For the main thread only.
    """

    __slots__ = ("_address", "_native", "_python", "_trampoline", "is_raising", "signum")

    def __init__(self, signum: int) -> None:
        self.signum = signum
        self._python: object = _signal.getsignal(signum)
        self._native = sigaction.read(signum)
        self._address = sigaction.handler_address(self._native)
        #: Address of Python's own C handler, which calls the functions that Python knows of.
        self._trampoline = 0
        #: Whether a C handler is being called, which may pass the signal on to Python.
        self.is_raising = False

    @property
    def function(self) -> HandlerFunction | None:
        """The Python function, if it is one that the kernel's signals came to."""
        is_python = callable(self._python) and self._address == self._learn_trampoline()
        return self._python if is_python else None  # type: ignore[return-value]  # it is callable

    def replace_by(self, function: HandlerFunction) -> None:
        """Install `function` in its place."""
        _signal.signal(self.signum, function)
        self._learn_trampoline()

    def is_replaced_by(self, function: HandlerFunction) -> bool:
        """Whether `function` is what signals come to: nobody's is over it, in Python or in C."""
        if _signal.getsignal(self.signum) is not function:
            return False
        address = sigaction.read_address(self.signum)
        return address == (self._trampoline or self._learn_trampoline())

    def put_back(self) -> None:
        """Make it the signal's disposition again.

        `signal.signal` cannot put back a None: Python is told SIG_DFL then, and the kernel gets
        the C handler. For the moment between the two calls, the default is in force.
        """
        known = self._python
        if not callable(known) and known not in _CONSTANTS:
            known = _signal.SIG_DFL
        _signal.signal(self.signum, known)
        # Python's call drops flags such as SA_RESTART, and any C handler.
        sigaction.write(self.signum, self._native)

    def carry_out(self, frame: FrameType | None, *, may_raise: bool) -> None:
        """Do what it would have done with the signal that has just arrived.

        With `may_raise`, the signal is nobody else's: if this is the kernel's disposition again,
        it is raised anew, so that the default action is taken, or the C handler called. Without,
        somebody handles it, and a default action is not taken.
        """
        if (function := self.function) is not None:
            function(self.signum, frame)
        elif self._address in {signal.SIG_IGN, self._trampoline}:
            return
        elif may_raise and sigaction.read_address(self.signum) == self._address:
            os.kill(os.getpid(), self.signum)
        elif self._address != signal.SIG_DFL:
            self._raise_beneath()

    def take_back(self, frame: FrameType | None) -> None:
        """Take the signal back from a C handler that passes it on to Python.

        It goes to the Python function over which that C handler was installed.
        """
        if callable(self._python):
            self._python(self.signum, frame)

    def _learn_trampoline(self) -> int:
        """Look it up while one of our functions is installed, and so it is what the kernel has."""
        if not self._trampoline:
            self._trampoline = sigaction.read_address(self.signum)
        return self._trampoline

    def _raise_beneath(self) -> None:
        """Have the kernel call a C handler, with all that it expects, and return to the present.

        faulthandler chains in this way. raise(3) returns when the C handler has; should that
        pass the signal on, Python's handlers run before `is_raising` is reset.
        """
        present = sigaction.read(self.signum)
        sigaction.write(self.signum, self._native)
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {self.signum})
        self.is_raising = True
        try:
            signal.raise_signal(self.signum)
        finally:
            self.is_raising = False
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            sigaction.write(self.signum, present)
