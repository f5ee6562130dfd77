"""Looks at all objects of the interpreter, one at a time: each refers to all of them meanwhile.

Whoever counts the references to one, to learn whether it is in use, must not count those.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from itertools import compress
from typing import TYPE_CHECKING, Any, Final, final

from probate.system.forking import forget_in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Answers(dict[type, bool]):
    """What a function says of classes, each asked for once."""

    def __init__(self, function: Callable[[type], bool]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, cls: type) -> bool:
        answer = self[cls] = self._function(cls)
        return answer


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
        """Return those of whose class `of` says so; some milliseconds, where there are many."""
        with self._lock:
            objects = gc.get_objects()
            found = list(compress(objects, map(_Answers(of).__getitem__, map(type, objects))))
            # The frame may live on, in the traceback of what falls in.
            objects.clear()
        return found

    @contextlib.contextmanager
    def unobserved(self) -> Iterator[None]:
        """Keep others from looking meanwhile."""
        with self._lock:
            yield


#: The one of this interpreter.
heap: Final = Heap()
