"""KindDescription: what the kit has to know of a kind, and of the things that it owns."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

K = TypeVar("K")
T = TypeVar("T")


def _itself(thing: Any) -> Any:
    return thing


@final
@dataclass(frozen=True, kw_only=True)
class NameDescription(Generic[T]):
    """Says how things that outlive their host are found by their names.

    `name` returns the name of one, a string or a number; `is_there` asks the kernel whether there
    is anything of that name, and `remove` removes it. `succeed` makes another thing under the name
    of one that is gone, as a stranger would, and `in_use` uses what has a name for a `with` block,
    as another OS process would: without them, nobody checks that a reclaim leaves both alone.
    """

    name: Callable[[T], Any]
    is_there: Callable[[Any], bool]
    remove: Callable[[Any], object]
    succeed: Callable[[Any], object] | None = None
    in_use: Callable[[Any], AbstractContextManager[object]] | None = None


@final
@dataclass(frozen=True, kw_only=True)
class KindDescription(Generic[K, T]):
    """Describes one kind, and one sort of thing that it owns, to the conformance kit.

    Needed are `kind`, which makes a new kind as its entry point does; `make`, which makes a thing
    that a pid owns; and `is_alive`. What else is given is checked as well: each of the optional
    functions says which check it is for, and without it that check is left out.
    """

    #: Makes a kind: what the entry point names.
    kind: Callable[[], K]
    #: Makes a thing that a pid owns, by the kind's manager or table; raises what that raises.
    make: Callable[[K, int], T]
    #: Asks the kernel, never the kind, whether a thing is still there.
    is_alive: Callable[[Any], bool]
    #: Returns what the kernel knows a new thing by (an inode, a path, a pid), for `is_alive`, where
    #: a thing itself cannot be asked any more once it is released.
    identify: Callable[[T], Any] = _itself
    #: The kind's name, where neither its table nor its `kind` says it.
    name: str | None = None
    #: Uses a thing, and raises if that cannot be done: others' things work when one owner ends.
    use: Callable[[T], object] | None = None
    #: Gives one back by hand; by default, the orchestrator's `give_back`.
    give_back: Callable[[K, int, T], object] | None = None
    #: Ends a thing natively, behind the kind's back: the others are released all the same.
    end: Callable[[T], object] | None = None
    #: Makes a thing that nobody owns, which the kind adopts; it needs an `end`.
    make_elsewhere: Callable[[], T] | None = None
    #: Keeps a thing in use for a `with` block, in which its release is BUSY.
    keep_busy: Callable[[T], AbstractContextManager[object]] | None = None
    #: Keeps the release of a thing from coming to an end, for a `with` block.
    stall: Callable[[T], AbstractContextManager[object]] | None = None
    #: Has somebody else use the same thing (a dup, an attachment) for a `with` block, as a function
    #: that raises once that cannot be done any more: the owner's end takes nothing from them.
    share: Callable[[T], AbstractContextManager[Callable[[], object]]] | None = None
    #: Of things that outlive their host: how they are found by name.
    names: NameDescription[T] | None = None
    #: Whether to be asked to stop is enough to end a thing, as it is for a task.
    ends_when_asked: bool = False
    #: What is to be entered before each check, and left after it.
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    #: How many things of others are made to see what they cost an owner.
    many: int = 24
    #: Seconds after which a call that must not block is said to.
    patience: float = 5.0
    #: Kinds that `before` and `after` may name although they are not installed here.
    other_kinds: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.make_elsewhere is not None and self.end is None:
            raise ValueError("what is made elsewhere is nobody's: make_elsewhere needs an end")
