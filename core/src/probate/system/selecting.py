"""Selectors that poll without an epoll instance, so that the kernel knows nothing of them.

`PollSelector` and `SelectSelector` hand the kernel all their numbers at each call: one that is
closed in between is another's at the next.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Final

from probate.system.allobjects import heap

if TYPE_CHECKING:
    from collections.abc import Iterator


class _LastLook:
    """The instances that were found last, and how many references to each class are not theirs."""

    instances: ClassVar[list[weakref.ref[Any]]] = []
    others: Final[weakref.WeakKeyDictionary[type, int]] = weakref.WeakKeyDictionary()


def without_epoll() -> list[Any]:
    """All instances of such selectors of the standard library, and of what derives from them.

    Each instance refers to its class. So only if there are more references to one than there
    were, all objects are looked through, which takes some milliseconds.
    """
    module = sys.modules.get("selectors")
    if module is None:
        return []
    classes = [*_with_derived(module.PollSelector), *_with_derived(module.SelectSelector)]
    instances = [each for reference in _LastLook.instances if (each := reference()) is not None]
    others = _other_references(classes, instances)
    if any(
        count > _LastLook.others.get(cls, -1) for cls, count in zip(classes, others, strict=True)
    ):
        instances = heap.instances(lambda cls: cls in classes)
        _LastLook.instances = list(map(weakref.ref, instances))
        others = _other_references(classes, instances)
    for cls, count in zip(classes, others, strict=True):
        _LastLook.others[cls] = count
    return instances


def _other_references(classes: list[type], instances: list[Any]) -> list[int]:
    """How many references there are to each class but those of these instances."""
    return [sys.getrefcount(cls) - sum(type(each) is cls for each in instances) for cls in classes]


def _with_derived(cls: type) -> Iterator[type]:
    yield cls
    derived: type
    for derived in cls.__subclasses__():
        yield from _with_derived(derived)
