"""What stands above owned files: found when their owner ends, and closed before them.

A `gzip.GzipFile(fileobj=file)`, a `zipfile.ZipFile(file, "w")` or a `TextIOWrapper` over a file
holds bytes back, and the file knows nothing of it. So all objects that write to something are
asked what is beneath them (gc.get_referents). Of 100,000 objects they are found in some 6 ms: that
is done once for all files of an owner, and only if anybody but its own entry refers to one of them.
A descriptor number is not referred to: of all `FileIO` objects those are looked for that have it.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import io
import os
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from probate.errors import safe_repr
from probate.system import heap
from probate_files.descriptor import Descriptor
from probate_files.openfile import OpenFile, open_file_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from probate_files.entry import Entry

#: What a thing that writes to a file has: most of them, a TarFile, a wave.Wave_write.
_WRITING: Final = {"write", "addfile", "writeframes"}

#: What all file objects of the standard library derive from; without its `abc`, which takes time.
_FILE: Final = io.IOBase.__base__

#: How many references there are to each layer of a file that nobody else refers to, by the types
#: of its layers: measured, since interpreters differ.
_alone: dict[tuple[type, ...], list[int]] = {}


def look_above(entries: Iterable[Entry]) -> None:
    """Have each file, and each descriptor, know what stands above it."""
    files: list[OpenFile] = []
    numbers: dict[int, Descriptor] = {}
    for entry in entries:
        if isinstance(entry, Descriptor):
            if (number := entry.number) is not None:
                numbers[number] = entry
        elif (file := open_file_of(entry)) and file.is_writable and file.closing is None:
            files.append(file)
    if not numbers and not any(map(_is_referred_to, files)):
        return
    writers = _all_writers()
    for raw in writers:
        if isinstance(raw, io.FileIO):
            # Closed, or disarmed, it has none.
            with contextlib.suppress(ValueError):
                if (descriptor := numbers.get(raw.fileno())) is not None:
                    file = OpenFile(raw)
                    descriptor.put_on_top(file)
                    files.append(file)
    _put_on_top(files, writers)


def _is_referred_to(file: OpenFile) -> bool:
    """Whether anybody but its entry refers to a layer of a file."""
    if not file.is_standard:
        return True
    # Before there is another list of the layers.
    counts = _references(file)
    # By a list: a tuple that is still being made must not be seen by who looks at all objects.
    types: tuple[Any, ...] = tuple([type(layer) for layer in file.layers])
    if types not in _alone:
        try:
            top: Any = io.FileIO(os.devnull, "r+")
        except OSError:
            # No descriptor is left for it: one look too many does no harm.
            return True
        for each in types[-2::-1]:
            top = each(top)
        alone = OpenFile(top)
        del top
        _alone[types] = _references(alone)
        alone.release()
    return any(map(int.__gt__, counts, _alone[types]))


def _references(file: OpenFile) -> list[int]:
    return [sys.getrefcount(file.layer(index)) for index in range(len(file.layers))]


def _may_write(cls: type) -> bool:
    bases = cls.__mro__
    names = {name for base in bases for name in vars(base)}
    return _FILE in bases or (
        bool(_WRITING & names) and ("close" in names or issubclass(cls, codecs.Codec))
    )


def _all_writers() -> list[object]:
    """All objects that may stand above a file, and all file objects."""
    return heap.instances(_may_write)


def _writes(thing: object) -> bool:
    """Whether it is there to write to what is beneath it, and to be closed before that."""
    kind = type(thing)
    if str(kind.__module__).partition(".")[0] not in sys.stdlib_module_names:
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
    # A transport is written for by its loop, which alone may close it.
    return not isinstance(thing, getattr(sys.modules.get("asyncio"), "BaseTransport", ()))


def _put_on_top(files: list[OpenFile], writers: list[object]) -> None:
    """Have each file know what of these stands above it, what is to be closed first in front."""
    things = {id(each): each for each in writers}
    things.update((id(layer), layer) for file in files for layer in file.layers)
    below: dict[int, set[int]] = {}
    above: dict[int, set[int]] = defaultdict(set)
    for name, thing in things.items():
        below[name] = {id(each) for each in _referents(thing)} & things.keys()
        for other in below[name]:
            above[other].add(name)
    data_files = _data_files()
    for file in files:
        levels = _levels({id(each) for each in file.layers}, above)
        beneath = {name: _all_beneath(name, below) for name in levels}
        found = [
            name
            for name, level in levels.items()
            if level and not _is_inside(name, levels, beneath) and _writes(things[name])
        ]
        found.sort(key=lambda name: len(beneath[name]), reverse=True)
        file.put_on_top([things[name] for name in found])
        named = data_files.get(safe_repr(file.native), [])
        file.put_on_top(named if len(named) == 1 else [])


def _levels(layers: set[int], above: dict[int, set[int]]) -> dict[int, int]:
    """How far above these layers, whose level is 0, each thing stands that stands there at all."""
    levels: dict[int, int] = {}
    reached, level = layers, 0
    while reached:
        levels.update(dict.fromkeys(reached, level))
        reached = {name for each in reached for name in above.get(each, ())} - levels.keys()
        level += 1
    return levels


def _all_beneath(name: int, below: dict[int, set[int]]) -> set[int]:
    found: set[int] = set()
    left = [name]
    while left:
        new = below.get(left.pop(), set()) - found
        found |= new
        left += new
    return found - {name}


def _is_inside(name: int, levels: dict[int, int], beneath: dict[int, set[int]]) -> bool:
    """Whether it is a part of what stands nearer to the file, as they refer to each other.

    Such as the buffer that a GzipFile has inside (since 3.12), which is its own affair.
    """
    return any(
        name in beneath.get(other, ()) and levels[other] < levels[name] for other in beneath[name]
    )


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


def _referents(thing: object) -> list[object]:
    found = gc.get_referents(thing)
    # An instance may refer to its attributes by way of a dictionary.
    return found + gc.get_referents(*[each for each in found if type(each) is dict])
