"""Wrong signal numbers, masks and handlers: clear errors, before anything is done."""

from __future__ import annotations

import functools
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from probate import ProcessManager
    from probate_signals import SignalManager

USR1 = signal.SIGUSR1


def ignore(signum: int, frame: object) -> None:
    """A handler that does nothing."""


async def _coroutine(signum: int, frame: object) -> None: ...


class _CoroutineCall:
    async def __call__(self, signum: int, frame: object) -> None: ...


BAD_NUMBERS: list[tuple[Any, type[Exception], str]] = [
    ("SIGTERM", TypeError, "signal.SIGTERM"),
    (True, TypeError, "True"),
    (15.0, TypeError, "15.0"),
    (None, TypeError, "None"),
    (0, ValueError, "0 is no signal number"),
    (-1, ValueError, "-1 is no signal number"),
    (65, ValueError, "65 is no signal number"),
    (32, ValueError, "C library keeps"),
    (signal.SIGKILL, ValueError, "SIGKILL can be neither caught nor blocked"),
    (signal.SIGSTOP, ValueError, "SIGSTOP can be neither caught nor blocked"),
]


@pytest.mark.parametrize(("signum", "error", "message"), BAD_NUMBERS)
@pytest.mark.parametrize("method", ["register", "unregister", "send", "block", "unblock"])
def test_wrong_numbers_are_refused_before_anything_is_done(
    manager: ProcessManager,
    signals: SignalManager,
    method: str,
    signum: object,
    error: type[Exception],
    message: str,
) -> None:
    """Uncatchable signals and wrong numbers are clear errors, and nothing is owned."""
    process = manager.create_process("bad")
    arguments: tuple[object, ...] = (signum,)
    if method in {"block", "unblock"}:
        arguments = ([USR1, signum],)
    elif method == "register":
        arguments = (signum, ignore)

    with pytest.raises(error, match=message):
        getattr(signals, method)(process.pid, *arguments)

    assert not manager.orchestrator.has_resources(process.pid)


@pytest.mark.parametrize(
    "handler",
    [
        None,
        7,
        "handler",
        signal.SIG_IGN,
        signal.SIG_DFL,
        _coroutine,
        functools.partial(_coroutine, 1),
        _CoroutineCall(),
    ],
)
def test_what_cannot_be_called_is_no_handler(
    manager: ProcessManager, signals: SignalManager, handler: Any
) -> None:
    """Dispositions are no handlers, and a coroutine function would never run."""
    process = manager.create_process("bad")

    with pytest.raises(TypeError, match="handler"):
        signals.register(process.pid, USR1, handler)

    assert not manager.orchestrator.has_resources(process.pid)
    assert signal.getsignal(USR1) is signal.SIG_DFL


@pytest.mark.parametrize("signums", [USR1, None, 10])
def test_a_mask_is_given_as_several_numbers(
    manager: ProcessManager, signals: SignalManager, signums: Any
) -> None:
    """One bare number is a mistake that is told."""
    process = manager.create_process("bad")

    with pytest.raises(TypeError, match="expected signal numbers"):
        signals.block(process.pid, signums)
