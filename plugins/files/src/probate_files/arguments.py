"""Arguments, checked before anything is acquired."""

from __future__ import annotations

import codecs
import io
import math
import os
import tempfile
from typing import Any, Final

from probate.journal import random_path
from probate.system import checked_int, identify

#: Standard input, output and error: the host's, never one process's.
STANDARD: Final = {0: "standard input", 1: "standard output", 2: "standard error"}

#: What no offset in a file reaches: `off_t` has 64 bits, one of them the sign.
_OFFSET_END: Final = 1 << 63

_NEWLINES: Final = (None, "", "\n", "\r", "\r\n")


def descriptor_of(file: object) -> int:
    """The descriptor number of a file object, or the number itself.

    Raises TypeError for what has none, ValueError for what is closed.
    """
    if isinstance(file, int) and not isinstance(file, bool):
        fd = file
    else:
        fileno = getattr(file, "fileno", None)
        if fileno is None or isinstance(file, bool):
            raise TypeError(f"expected a file object or a descriptor, got {file!r}")
        try:
            fd = fileno()
        except io.UnsupportedOperation:
            raise TypeError(f"it has no descriptor: {file!r}") from None
    try:
        identify(fd)
    except (OSError, OverflowError):
        raise ValueError(f"no open descriptor: {file!r}") from None
    return fd


def has_closed(file: Any) -> bool:
    """Whether a file object or an archive is closed."""
    # A ZipFile tells by having no file any more.
    return bool(getattr(file, "closed", getattr(file, "fp", file) is None))


def is_closed(file: object) -> bool:
    """Whether a file object, an archive, or a number, is closed."""
    if not isinstance(file, int):
        return has_closed(file)
    try:
        descriptor_of(file)
    except ValueError:
        return True
    return False


def checked_path(path: object) -> str | bytes:
    """A path as the kernel takes it. Raises TypeError, ValueError."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"expected a path, got {path!r}")
    text: str | bytes = os.fspath(path)
    if not text:
        raise ValueError("expected a path, got an empty one")
    if (b"\0" if isinstance(text, bytes) else "\0") in text:  # type: ignore[operator]  # as it is
        raise ValueError(f"a path has no NUL in it: {path!r}")
    return text


def absolute_path(path: object) -> str:
    """The path, absolute: the working directory may be another one when it is unlinked."""
    return os.path.abspath(os.fsdecode(checked_path(path)))  # noqa: PTH100  Path.absolute keeps ".."


def check_open(
    mode: object, buffering: object, encoding: str | None, errors: str | None, newline: str | None
) -> None:
    """Refuse what `open` would only refuse after it has opened, and perhaps emptied, the file."""
    if not isinstance(mode, str):
        raise TypeError(f"a mode is a string such as 'r+', got {mode!r}")
    checked_int("buffering", buffering)
    ways = [letter for letter in mode if letter in "rwax"]
    if len(set(mode)) != len(mode) or set(mode) - set("rwaxbt+") or len(ways) != 1:
        raise ValueError(f"a mode is one of r, w, a, x, with b or t and +, got {mode!r}")
    if "b" in mode:
        if "t" in mode or (encoding, errors, newline) != (None, None, None):
            raise ValueError(f"mode {mode!r} is binary: no t, encoding, errors or newline")
        return
    if buffering == 0:
        raise ValueError("text is always buffered: buffering 0 needs a binary mode")
    if newline not in _NEWLINES:
        raise ValueError(f"a newline is one of {_NEWLINES}, got {newline!r}")
    if errors is not None:
        codecs.lookup_error(errors)
    if encoding is not None:
        io.TextIOWrapper(io.BytesIO(), encoding)


def temporary_path(suffix: object, prefix: object, directory: object) -> str:
    """A new path in a folder, by default in tempfile's. Raises TypeError, ValueError."""
    for name, value in (("suffix", suffix), ("prefix", prefix)):
        if not isinstance(value, str):
            raise TypeError(f"a {name} is a string, got {value!r}")
        if "/" in value or "\0" in value:
            raise ValueError(f"a {name} has neither / nor NUL in it, got {value!r}")
    folder = absolute_path(tempfile.gettempdir() if directory is None else directory)
    return random_path(folder, str(prefix), str(suffix))


def checked_timeout(timeout: object) -> float | None:
    """Seconds, or None for no end. Raises TypeError, ValueError."""
    if timeout is None:
        return None
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
        raise TypeError(f"a timeout is a number of seconds or None, got {timeout!r}")
    if math.isnan(timeout) or timeout < 0:
        raise ValueError(f"a timeout is not negative, got {timeout}")
    return timeout


def checked_range(start: object, length: object) -> tuple[int, int]:
    """Where a locked range starts and how long it is. Raises TypeError, ValueError."""
    first, count = (
        checked_int(name, value, least=0, most=_OFFSET_END - 1)
        for name, value in (("start", start), ("length", length))
    )
    if first + count > _OFFSET_END:
        raise ValueError(f"a file has no byte {first + count - 1}")
    return first, count
