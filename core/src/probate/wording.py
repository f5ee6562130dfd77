"""Errors and resources in words: texts for accounts, from objects that may refuse to speak."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def describe_error(error: BaseException) -> str:
    """The type and message of an error; never raises."""
    name = type(error).__name__
    message = safe_repr(error, str, otherwise="")
    return f"{name}: {message}" if message else name


def safe_repr(
    thing: object, speak: Callable[..., object] = repr, *, otherwise: str | None = None
) -> str:
    """What `speak` says of `thing`; never raises.

    If it raises or says no text, `otherwise`, by default the plainest repr that there is.
    Undecodable file names (PEP 383) come out in backslashes: an account must fit into JSON.
    """
    try:
        text = speak(thing)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        text = None
    if not isinstance(text, str):
        text = object.__repr__(thing) if otherwise is None else otherwise
    return text.encode("utf-8", "backslashreplace").decode()
