"""OwnedDescriptor: a number that is closed once, and only while it is the file that was taken."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, TypeVar, final

from probate.outcome import Outcome
from probate.system.identity import close_if_same, identify, is_still
from probate.system.making import built, take_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from probate.system.identity import FileIdentity


R = TypeVar("R")


@final
class OwnedDescriptor:
    """Knows which file a descriptor number referred to when it was acquired.

    For whatever closes a number at its end: ask `is_ours` right before. `fileno` is the method of
    the object that has the number, if there is one: once it says otherwise, the number is
    somebody else's, even if it refers to the same file. Raises OSError (EBADF) if it is not open.
    `identity` is what it refers to, where that has been looked at just now.
    """

    __slots__ = ("_fileno", "_is_over", "identity", "number")

    def __init__(
        self,
        number: int,
        fileno: Callable[[], int] | None = None,
        identity: FileIdentity | None = None,
    ) -> None:
        self.number = number
        self.identity = identify(number) if identity is None else identity
        self._fileno = fileno
        self._is_over = False

    def __repr__(self) -> str:
        return f"<OwnedDescriptor {self.number}, {self.identity}>"

    @property
    def is_over(self) -> bool:
        """Tell whether it was closed here, or given up: its number may be another's."""
        return self._is_over

    @property
    def is_open(self) -> bool:
        """Tell whether the number still refers to the same file, whoever has it by now."""
        return not self._is_over and is_still(self.number, self.identity)

    @property
    def is_ours(self) -> bool:
        """Tell whether the number still refers to the same file, and its object has it still."""
        return self._is_held() and self.is_open

    def forget(self) -> None:
        """Never touch the number again: it was closed elsewhere, and is another's.

        The next to get it may well have opened the very same file, which cannot be told apart.
        """
        self._is_over = True

    def close(self) -> Outcome:
        """Close the number, once, if it `is_ours`; else return ALREADY_GONE.

        Raises OSError from close(2); the number is free all the same then.
        """
        if self._is_over or not self._is_held():
            return Outcome.ALREADY_GONE
        self._is_over = True
        return close_if_same(self.number, self.identity)

    def _is_held(self) -> bool:
        if self._fileno is None:
            return True
        try:
            return self._fileno() == self.number
        except (OSError, ValueError):
            # How files and connections say that they are closed.
            return False


def open_owned(open_one: Callable[[], int]) -> OwnedDescriptor:
    """Open a descriptor, or none, whatever falls in. Raises what `open_one` raises."""
    return built(open_one, OwnedDescriptor, os.close)


def opened(
    open_one: Callable[[], int],
    build: Callable[[OwnedDescriptor], R],
    undo: Callable[[], object] | None = None,
) -> R:
    """Open a descriptor, as `built`: it is closed after `undo`, unless it is another's by then."""

    def undone(close: Callable[[], object]) -> None:
        try:
            if undo is not None:
                undo()
        finally:
            close()

    owned = partial(built, open_one, OwnedDescriptor, lambda fd: undone(partial(os.close, fd)))
    return built(owned, build, lambda each: undone(each.close))


def opened_all(
    open_some: Callable[[], Iterable[int]], build: Callable[[list[OwnedDescriptor]], R]
) -> R:
    """Open several descriptors at once, as `opened`."""
    numbers: list[int] = []
    owned: list[OwnedDescriptor] = []
    try:
        take_all(numbers, open_some)
        owned.extend(map(OwnedDescriptor, numbers))
        return build(owned)
    except BaseException:
        for each in owned:
            each.close()
        for number in numbers[len(owned) :]:
            os.close(number)
        raise
