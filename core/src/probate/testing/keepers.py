"""Who keeps what a test has left: a first-use cache of a library, or a fixture of a wider scope.

Such a thing was acquired while a test ran, and is not the test's: it would have been acquired by
whichever test came first, and is there once. It is told by the references to it, a few steps away,
from a module of a library, or from a fixture's value. What the test's own code has made is never a
library's: that may have registries of what is there. A number, such as that of a pipe, is looked
for in the modules that are on the stack of whoever acquired it; that is how what multiprocessing
starts once is told from what it starts each time.
"""

from __future__ import annotations

import gc
import io
import multiprocessing.process
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from probate.testing.held import Thing
    from probate.testing.sites import Site

#: How many references away a keeper may be: a worker in a list of a pool that a module has is five.
_STEPS: Final = 6

#: With more than these in hand, nearly everything is found to keep nearly everything.
_CROWD: Final = 500

#: How numbers are named that are kept, by the kind of what they stand for.
_NUMBERS: Final = {
    kind: re.compile(pattern, re.IGNORECASE).search
    for kind, pattern in (("sockets", "fd|fileno"), ("files", "fd|fileno"), ("processes", "pid"))
}

_NOT_LOOKED_INTO: Final = (type, ModuleType, FunctionType)

#: Modules whose objects see to tests, and refer to all that these do.
_MACHINERY: Final = ("_pytest", "pluggy", "probate.testing", "xdist", "execnet")


@final
class Keepers:
    """Finds who keeps a thing, among libraries and fixtures."""

    def __init__(self, test_files: Collection[str], fixture_values: dict[str, object]) -> None:
        self._test_files = test_files
        self._fixtures = {id(value): f"fixture {name}" for name, value in fixture_values.items()}
        self._modules = {
            id(vars(module)): f"module {name}"
            for name, module in list(sys.modules.items())
            if isinstance(module, ModuleType) and self._keeps(name, module)
        }

    def _keeps(self, name: str, module: ModuleType) -> bool:
        return (
            # The standard library has registries of all there is of something, and hardly a cache.
            name.partition(".")[0] not in sys.stdlib_module_names
            and not name.startswith((*_MACHINERY, "__main__"))
            and getattr(module, "__file__", None) not in self._test_files
        )

    def of(self, thing: Thing, site: Site | None) -> str | None:
        """Return who keeps it, in words; None if nobody does who is known here."""
        roots = self._fixtures if self._is_tests(site) else self._fixtures | self._modules
        if (keeper := _among_referrers(objects_of(thing), roots)) is not None:
            return keeper
        named, number = _NUMBERS.get(thing.kind), thing.identity[0]
        # By the name as well: there are many numbers.
        return named and self._in_modules(
            site, lambda key, value: type(value) is int and value == number and bool(named(key))
        )

    def of_name(self, name: str, site: Site) -> str | None:
        """Return the module of a library that knows something by its name, as `of` does."""
        if self._is_tests(site):
            return None
        return self._in_modules(
            site, lambda _, value: isinstance(value, str | Path) and str(value) == name
        )

    def _is_tests(self, site: Site | None) -> bool:
        place = None if site is None else next(site.places(), None)
        return place is not None and place.file in self._test_files

    def _in_modules(self, site: Site | None, is_it: Callable[[str, object], bool]) -> str | None:
        """Find a value, or an attribute of one, of a module that was on the stack.

        Of any module where that is not known.
        """
        files = None if site is None else {code.co_filename for code, _ in site.frames}
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file not in self._test_files and (files is None or file in files):
                for each in list(vars(module).items()):
                    if any(is_it(key, value) for key, value in (each, *_attributes(each[1]))):
                        return f"module {name}"
        return None


def _among_referrers(objects: list[Any], roots: dict[int, str]) -> str | None:
    seen = {id(each) for each in objects}
    # What is looked at here is referred to by these lists, too, and they by this frame.
    looks = []
    for _ in range(_STEPS):
        for each in objects:
            if id(each) in roots:
                return roots[id(each)]
        if not objects or len(objects) > _CROWD:
            return None
        looks.append(objects)
        referrers = gc.get_referrers(*objects)
        seen.update(map(id, looks))
        seen.update((id(looks), id(referrers)))
        objects = []
        for each in referrers:
            if id(each) not in seen and not _is_dead_end(each):
                seen.add(id(each))
                objects.append(each)
    return None


def _attributes(value: object) -> list[tuple[str, object]]:
    names = None if isinstance(value, _NOT_LOOKED_INTO) else getattr(value, "__dict__", None)
    if not isinstance(names, dict):
        return []
    return list(names.items())


def _is_dead_end(each: object) -> bool:
    """Tell what refers to things without keeping them for anybody, or keeps everything."""
    if isinstance(each, FrameType | ModuleType):
        return True
    module = getattr(type(each), "__module__", None)
    if isinstance(module, str) and module.startswith(_MACHINERY):
        return True
    return each is vars(threading)["_active"]  # all threads that run


def objects_of(thing: Thing) -> list[Any]:
    """Return the objects of Python's that stand for a thing, if there are any."""
    first = thing.identity[0]
    if thing.kind == "threads":
        return [each for each in threading.enumerate() if each.native_id == first]
    if thing.kind == "tasks":
        return [task for task in (first(),) if task is not None]
    if thing.kind == "processes":
        classes: tuple[type, ...] = (subprocess.Popen, multiprocessing.process.BaseProcess)
        return [each for each in _instances(classes) if _child_of(each) == first]
    if thing.kind in {"sockets", "files"} and isinstance(first, int):
        classes = (socket.socket, io.FileIO)
        return [each for each in _instances(classes) if _number_of(each) == first]
    return []


def _instances(classes: tuple[type, ...]) -> list[Any]:
    # By their type: `isinstance` would ask proxies and mocks, which may do anything.
    return [each for each in gc.get_objects() if issubclass(type(each), classes)]


def _number_of(each: Any) -> int | None:
    try:
        return each.fileno()  # type: ignore[no-any-return]
    except Exception:
        return None


def _child_of(each: Any) -> int | None:
    try:
        return each.pid  # type: ignore[no-any-return]
    except Exception:
        return None
