"""One case, tried: adopted or refused, its owner ended, and told as a row of the table."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from adoption.place import Place
from probate.errors import AlreadyOwnedError, UnadoptableError, safe_repr

if TYPE_CHECKING:
    from pathlib import Path

    from adoption.case import Case, Trial
    from probate import ProcessManager

#: Seconds that whoever uses an object gets to stop.
GRACE: Final = 5.0

#: What stands in the table for an error that says only that nobody knows the object, and its end.
UNKNOWN: Final = "no kind knows it"
_WAY_OUT: Final = "; say how it is given back: adopt(thing, release=thing.close)"


@dataclass(frozen=True)
class Row:
    """What became of one object."""

    group: str
    name: str
    cls: str
    #: The kind that takes it; empty if none does.
    kind: str
    #: What its owner's end does; or why it is refused.
    what: str
    #: What to say in place of plain `adopt`, where that is refused.
    instead: str


def tried(case: Case, manager: ProcessManager, folder: Path) -> Row:
    """Try a case; what is promised of all is asserted, what is particular to it is returned."""
    with Place(folder, manager) as place, Bystanders() as bystanders:
        trial = case.make(place)
        bystanders.come()
        assert _absent(trial) == []
        process = manager.create_process("owner")
        cls, kind, instead = _class_of(trial.thing), "", ""
        try:
            trial.there(lambda: process.adopt(trial.thing))
        except (UnadoptableError, AlreadyOwnedError) as refusal:
            assert not process.usage()
            assert not process.terminate().has_freed_resources
            assert _absent(trial) == [], "what was refused is not as it was"
            what, instead = _reason(refusal, trial), _released(trial, manager)
        else:
            [kind] = process.usage()
            if trial.is_let_go:
                trial.thing = None
            _end(process, kind)
            assert not (left := _present(trial)), f"not {left}"
            what = "; ".join(dict.fromkeys(each.gone for each in trial.witnesses))
        bystanders.check()
        return Row(case.group, case.name, cls, kind, what, instead)


def _end(process: Any, kind: str) -> None:
    result = process.terminate(grace=GRACE)
    assert (result.errors, dict(result.stats.by_type)) == ((), {kind: 1})


def _released(trial: Trial, manager: ProcessManager) -> str:
    """Have it given back by a function, as the error says; return what to write for that."""
    if trial.release is None or trial.say.startswith("nothing"):
        return trial.say or "nothing: it holds nothing"
    process = manager.create_process("says how")
    release = trial.release
    trial.there(lambda: process.adopt(trial.thing, release=release))
    assert list(process.usage()) == ["callbacks"]
    _end(process, "callbacks")
    assert not (left := _present(trial)), f"not {left}"
    return _in_words(trial.say)


def _in_words(say: str) -> str:
    """What one says in place of plain `adopt`, code as code."""
    if say.startswith("adopt "):
        return say
    function, more = re.fullmatch(r"([^,;]*)(.*)", say).groups()  # type: ignore[union-attr]  # always
    if function.startswith("a function"):
        return f"`release=` {say}"
    return f"`release={function}`{more}"


def _absent(trial: Trial) -> list[str]:
    return [each.gone for each in trial.witnesses if each.is_there and not each.is_there()]


def _present(trial: Trial) -> list[str]:
    return [each.gone for each in trial.witnesses if each.stays()]


def _class_of(thing: object) -> str:
    cls = type(thing)
    # Paths have moved to a module of their own in 3.13, and out of it again in 3.14.
    module = cls.__module__.replace("pathlib._local", "pathlib")
    if module == "builtins" or module.startswith("adoption."):
        return cls.__qualname__
    return f"{module}.{cls.__qualname__}"


def _reason(refusal: Exception, trial: Trial) -> str:
    """Why it is refused, without what differs from one run to the next."""
    if isinstance(refusal, AlreadyOwnedError):
        return f"it has an owner already, of kind {refusal.kind}"
    text = str(refusal)
    if type(trial.thing) is not int:
        text = text.replace(safe_repr(trial.thing), "it")
    said = re.fullmatch(r"no kind adopts this [\w.]+: (.*); asked: .*", text)
    assert said is not None, text
    if text.endswith(_WAY_OUT):
        return UNKNOWN
    return re.sub(r"<.*?>|\d{3,}", "...", said[1].removesuffix(": it"))


class Bystanders:
    """Sockets and pipes beside the object, of nobody's: whatever becomes of it, they work on."""

    def __init__(self) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._pipes: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        self.come()
        return self

    def come(self) -> None:
        """Take the next free numbers."""
        self._pairs.append(socket.socketpair())
        self._pipes.append(os.pipe())

    def check(self) -> None:
        """Have each carry a byte."""
        for one, other in self._pairs:
            other.settimeout(5)
            one.sendall(b".")
            assert other.recv(2) == b"."
        for reading, writing in self._pipes:
            os.write(writing, b".")
            assert os.read(reading, 2) == b"."

    def __exit__(self, *_: object) -> None:
        for pair in self._pairs:
            for end in pair:
                end.close()
        for pipe in self._pipes:
            for fd in pipe:
                with contextlib.suppress(OSError):
                    os.close(fd)
