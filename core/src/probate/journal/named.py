"""Named: what a plugin says of a thing that outlives its maker by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

M = TypeVar("M")


@final
class Named(NamedTuple, Generic[M]):
    """Says how a thing will be found should its owner die, for the journal.

    `before` is known before it is made: its name, at least. `after` is called with what was made,
    and returns what tells it from any other that may have its name by then. Both are JSON values.
    A name that nobody else can have chosen is said so by `"is_random": True` in `before`: then even
    what was never confirmed is given back.
    """

    #: For accounts, such as "shared memory /x".
    description: str
    before: Mapping[str, Any]
    after: Callable[[M], Mapping[str, Any]]
