"""Which versions of the core a plugin's distribution asks for.

A requirement such as `probate>=0.1,<0.2`, on a core whose version is plain numbers, is decided
here. All else is left to packaging, which takes longer to import than most plugins.
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PROJECT: Final = "probate"

#: Name and the rest of a dependency specifier (PyPA's "Dependency specifiers").
_DEPENDENCY: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(.*)", re.DOTALL)

#: Comparisons that mean the same for plain releases in every version scheme; `~=`, `===`, wildcards
#: and suffixes such as `rc1` are not among them.
_COMPARISON: Final = re.compile(r"\s*(>=|<=|==|!=|<|>)\s*([0-9]+(?:\.[0-9]+)*)\s*")
_RELEASE: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*")

_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


def canonical_name(name: str) -> str:
    """A project's name as it is compared (PyPA's "Names and normalization")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def unmet(requirements: Iterable[str], version: str) -> str:
    """The first of a distribution's requirements that core `version` does not meet, or ""."""
    for text in requirements:
        parts = _DEPENDENCY.fullmatch(text)
        if parts is None or canonical_name(parts[1]) != _PROJECT:
            continue
        is_met = _is_met_plainly(parts[2], version)
        if is_met is None:
            is_met = _is_met(text, version)
        if not is_met:
            return _spelt(text)
    return ""


def _is_met_plainly(constraints: str, version: str) -> bool | None:
    """Whether plain comparisons hold of a plain version; None for what is not that plain."""
    if not _RELEASE.fullmatch(version):
        return None
    if not constraints:
        return True
    comparisons = [_COMPARISON.fullmatch(each) for each in constraints.split(",")]
    if not all(comparisons):
        return None
    ours = _numbers(version)
    return all(
        _OPERATORS[each[1]](ours, _numbers(each[2])) for each in comparisons if each is not None
    )


def _numbers(release: str) -> tuple[int, ...]:
    """Its numbers without trailing zeros: 1.0 and 1 are one release."""
    numbers = [int(each) for each in release.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _is_met(text: str, version: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return True
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return True
    return requirement.specifier.contains(version, prereleases=True)


def _spelt(text: str) -> str:
    from packaging.requirements import Requirement

    return str(Requirement(text))
