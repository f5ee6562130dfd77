"""What stands above owned files: found when their owner ends, and closed before them.

A `gzip.GzipFile(fileobj=file)`, a `zipfile.ZipFile(file, "w")` or a `TextIOWrapper` over a file
holds bytes back, and the file knows nothing of it. Who refers to a file is known to the garbage
collector alone (gc.get_referrers), and asking takes as long as there are objects: some 3 ms for
100,000. So it is asked only if anybody but the owner's own entry refers to a file, and once for
all files of an owner. A descriptor number is not referred to: of all `FileIO` objects those are
looked for that have it.
"""

from __future__ import annotations

import gc
import io
import itertools
import os
import sys
from typing import TYPE_CHECKING, Any, Final, final

from probate.errors import safe_repr
from probate_files.descriptor import Descriptor
from probate_files.openfile import OpenFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from probate_files.entry import Entry

#: What a thing that writes to a file has: most of them, a TarFile, a wave.Wave_write.
_WRITING: Final = ("write", "addfile", "writeframes")

#: How many references there are to each layer of a file that nobody else refers to, by the types
#: of its layers: measured, since interpreters differ.
_alone: dict[tuple[type, ...], list[int]] = {}


def look_above(entries: Iterable[Entry]) -> None:
    """Have each file, and each descriptor, know what stands above it."""
    files: list[OpenFile] = []
    numbers: dict[int, Descriptor] = {}
    for entry in entries:
        if isinstance(entry, Descriptor):
            number = entry.number
            if number is not None:
                numbers[number] = entry
        elif (file := entry.open_file) is not None and file.is_writable and file.closing is None:
            files.append(file)
    for raw in _raw_files() if numbers else ():
        descriptor = None if raw.closed else numbers.get(raw.fileno())
        if descriptor is not None:
            file = OpenFile(raw)
            descriptor.put_on_top(file)
            files.append(file)
    suspects = list(itertools.chain.from_iterable(map(_referred_to, files)))
    if not suspects:
        return
    graph = _Graph(suspects)
    data_files = _data_files()
    for file in files:
        file.put_on_top(graph.above({id(each) for each in file.layers}))
        named = data_files.get(safe_repr(file.native), [])
        file.put_on_top(named if len(named) == 1 else [])


def _referred_to(file: OpenFile) -> list[object]:
    """The layers of a file that anybody else refers to."""
    if not file.is_standard:
        return file.layers
    # Before there is another list of the layers.
    counts = _references(file)
    types = tuple(map(type, file.layers))
    if types not in _alone:
        try:
            top: Any = io.FileIO(os.devnull, "r+")
        except OSError:
            # No descriptor is left for it: one look too many does no harm.
            return file.layers
        for each in types[-2::-1]:
            top = each(top)
        alone = OpenFile(top)
        del top
        _alone[types] = _references(alone)
        alone.release()
    compared = zip(file.layers, counts, _alone[types], strict=True)
    return [layer for layer, count, count_alone in compared if count > count_alone]


def _references(file: OpenFile) -> list[int]:
    return [sys.getrefcount(file.layer(index)) for index in range(len(file.layers))]


def _data_files() -> dict[str, list[Any]]:
    """The HDF5 files that are kept in file objects, by the repr of those: all that h5py tells."""
    h5py = sys.modules.get("h5py")
    found: dict[str, list[Any]] = {}
    if h5py is not None:
        for each in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
            if each.get_access_plist().get_driver() == h5py.h5fd.fileobj_driver:
                opened = h5py.File(each)
                # To be closed under one file only, there must be one; nothing is lost so far.
                opened.flush()
                found.setdefault(opened.filename, []).append(opened)
    return found


def _raw_files() -> Iterator[io.FileIO]:
    objects = gc.get_objects()
    types = {each for each in set(map(type, objects)) if issubclass(each, io.FileIO)}
    return itertools.compress(objects, map(types.__contains__, map(type, objects)))


@final
class _Graph:
    """Who stands on whom, from some layers upwards."""

    def __init__(self, layers: list[object]) -> None:
        #: In the order in which they were found, from below.
        self._known = {id(each): each for each in layers}
        self._is_layer = set(self._known)
        self._below: dict[int, set[int]] = {}
        level: list[object] = layers
        while level:
            found: list[object] = []
            for upper in _referrers(level):
                name = id(upper)
                below = {id(each) for each in _referents(upper)} & self._known.keys() - {name}
                self._below.setdefault(name, set()).update(below)
                if name not in self._known:
                    self._known[name] = upper
                    found.append(upper)
            level = found
        self._beneath = {name: self._all_beneath(name) for name in self._known}

    def above(self, layers: set[int]) -> list[object]:
        """What stands above these layers, what is to be closed first coming first."""
        found = [
            name
            for name in self._known
            if name not in self._is_layer
            and self._beneath[name] & layers
            and not self._is_part_of_another(name)
        ]
        found.sort(key=lambda name: len(self._beneath[name]), reverse=True)
        return [self._known[name] for name in found]

    def _all_beneath(self, name: int) -> set[int]:
        found: set[int] = set()
        left = [name]
        while left:
            new = self._below.get(left.pop(), set()) - found
            found |= new
            left += new
        return found - {name}

    def _is_part_of_another(self, name: int) -> bool:
        # They refer to each other, as a GzipFile and the buffer that it has inside (since 3.12).
        # Which of them was found first stands on the file, the others are its own affair.
        beneath = self._beneath[name]
        cycle = {name, *(other for other in beneath if name in self._beneath[other])}
        first = next(each for each in self._known if each in cycle)
        return first != name


def _referrers(objects: list[object]) -> list[object]:
    """What writes to any of these objects."""
    found = gc.get_referrers(*objects)
    # An instance may be referred to by way of its attributes only.
    attributes = [each for each in found if type(each) is dict]
    if attributes:
        found += gc.get_referrers(*attributes)
    return list({id(each): each for each in found if _writes(each)}.values())


def _referents(thing: object) -> list[object]:
    found = gc.get_referents(thing)
    return found + gc.get_referents(*(each for each in found if type(each) is dict))


def _writes(thing: object) -> bool:
    """Whether it is there to write to what is beneath it, and to be closed before that."""
    kind = type(thing)
    if kind.__module__.partition(".")[0] not in sys.stdlib_module_names:
        # Nobody knows what else it does. So it has to look like a file of one file.
        if not hasattr(kind, "__exit__"):
            return False
        if sum(isinstance(each, io.IOBase) for each in _referents(thing)) > 1:
            return False
    try:
        if isinstance(thing, io.IOBase):
            return not thing.closed and thing.writable()
    except Exception:
        # Half made, or detached, it writes nothing.
        return False
    transport = getattr(sys.modules.get("asyncio"), "BaseTransport", ())
    return (
        any(hasattr(kind, name) for name in _WRITING)
        and hasattr(thing, "close")
        # Its loop writes for it, and alone may close it.
        and not isinstance(thing, transport)
    )
