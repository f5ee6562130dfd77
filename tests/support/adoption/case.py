"""Case: one object that somebody may want to have owned, and how to tell what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from adoption.place import Place
    from adoption.witness import Witness


@dataclass
class Trial:
    """An object, fresh from its constructor."""

    #: Nobody else refers to it, unless its maker does.
    thing: object
    #: Each says that it is there, and works, until it is given back.
    witnesses: tuple[Witness, ...] = ()
    #: How its user would give it back; for what no kind takes.
    release: Callable[..., object] | None = None
    #: The same in the words of who writes it down.
    say: str = ""
    #: Calls what it is given where the object is to be adopted.
    there: Callable[[Callable[[], Any]], Any] = field(default=lambda adopt: adopt())
    #: Whether its user has to let go of it for it to come free.
    is_let_go: bool = False


@dataclass(frozen=True)
class Case:
    """How to come by an object."""

    group: str
    name: str
    make: Callable[[Place], Trial]
    #: The module that it takes, if that need not be installed.
    library: str = ""


#: All cases, in the order of the table.
CASES: Final[list[Case]] = []


def case(
    group: str, name: str, *, library: str = ""
) -> Callable[[Callable[[Place], Trial]], Callable[[Place], Trial]]:
    """Have a function make the object of a case."""

    def note(make: Callable[[Place], Trial]) -> Callable[[Place], Trial]:
        CASES.append(Case(group, name, make, library))
        return make

    return note
