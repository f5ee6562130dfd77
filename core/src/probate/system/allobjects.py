"""Looks at all objects of the interpreter, one at a time: each refers to all of them meanwhile.

Whoever counts the references to one, to learn whether it is in use, must not count those.
"""

from __future__ import annotations

import contextlib
import gc
import operator
import threading
from functools import partial
from itertools import chain, compress, filterfalse
from typing import TYPE_CHECKING, Any, Final, final

from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@final
class Heap:
    """All objects that the garbage collector knows (Python's `gc.get_objects`)."""

    def __init__(self) -> None:
        self.forget_parent()
        forget_in_forked_child(self)

    def forget_parent(self) -> None:
        """Have nobody look, in a forked child."""
        # Reentrant: a signal handler may look while its thread does.
        self._lock = threading.RLock()

    def instances(self, of: Callable[[type], bool]) -> list[Any]:
        """Return those of whose class `of` says so; some milliseconds, where there are many.

        Of a class that is first seen meanwhile there may be some that are not found.
        """
        with self._lock, _no_collection():
            types = list(chain.from_iterable(map(partial(map, type), _all_objects())))
            classes = dict(zip(map(_address, types), types, strict=True))
            return _of_types({number for number, cls in classes.items() if of(cls)})

    def unobserved(self) -> contextlib.AbstractContextManager[object]:
        """Keep others from looking meanwhile."""
        return self._lock


#: Tells objects apart by where they are, whatever their classes make of it. `id` would ask audit
#: hooks (PEP 578), whose code lets other threads run.
_address: Final[Callable[[object], int]] = object.__hash__


# Each look is one step of C, in which no other thread runs, and nothing is referred to after it: to
# a tuple that a thread has half made (`tuple(iterator)`) a reference more is a SystemError.


def _all_objects() -> Iterator[list[Any]]:
    """Return an iterator over one list, of all objects, which is made when it is asked for."""
    return map(operator.call, (gc.get_objects,))


def _of_types(wanted: set[int]) -> list[Any]:
    """Return the objects whose types have these addresses."""
    kept: list[list[Any]] = []
    # `append` and `clear` return None: the list goes by, and is forgotten in the end.
    first = filterfalse(kept.append, _all_objects())
    second: Iterator[Any] = iter(kept)
    for function in (type, _address, wanted.__contains__):
        second = map(partial(map, function), second)
    found = chain.from_iterable(map(compress, first, second))
    try:
        return list(chain(found, filter(None, map(operator.call, (kept.clear,)))))
    finally:
        kept.clear()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep garbage from being looked for: until Python 3.12, in the midst of any step."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


#: The one of this interpreter.
heap: Final = Heap()
