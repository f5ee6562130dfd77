"""Errors and resources in words: texts for accounts, from objects that may refuse to speak."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def in_words(error: BaseException) -> str:
    """The type and message of an error; never raises."""
    name = type(error).__name__
    message = spoken(error, str, "")
    return f"{name}: {message}" if message else name


def spoken(thing: object, speak: Callable[..., object], otherwise: str) -> str:
    """What `speak` says of `thing`; `otherwise` if it raises or says no text. Never raises.

    Undecodable file names (PEP 383) come out in backslashes: an account must fit into JSON.
    """
    try:
        text = speak(thing)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return otherwise
    if not isinstance(text, str):
        return otherwise
    return text.encode("utf-8", "backslashreplace").decode()
