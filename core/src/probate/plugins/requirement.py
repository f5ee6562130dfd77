"""Which versions of the core a plugin's distribution asks for.

Most ask for a range such as `probate>=0.1,<0.2`. A range that this core is in is recognised here;
all else is left to packaging, whose import would make `probate plugins` a sixth slower.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Name and the rest of a dependency specifier (PyPA's "Dependency specifiers").
_DEPENDENCY: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(.*)", re.DOTALL)

#: Either end of a range, where it is a plain release.
_BOUND: Final = re.compile(r"(>=|<)([0-9]+(?:\.[0-9]+)*)")


def canonical_name(name: str) -> str:
    """Spell a project's name as it is compared (PyPA's "Names and normalization")."""
    return re.sub(r"[-_.]+", "-", name).lower()


def unmet(requirements: Iterable[str], version: str) -> str:
    """Return the first of these requirements that core `version` does not meet, else ""."""
    for text in requirements:
        parts = _DEPENDENCY.fullmatch(text)
        if parts is None or canonical_name(parts[1]) != "probate":
            continue
        if _is_in_range(version, parts[2]):
            continue
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            return str(requirement)
    return ""


def range_of(version: str) -> str:
    """Return the range of cores whose contract is that of this one (docs/contract.md)."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f">=0.{minor},<0.{minor + 1}" if major == 0 else f">={major}.{minor},<{major + 1}"


def has_no_end(requirements: Iterable[str]) -> bool:
    """Tell whether cores with another contract, however late, meet all of these requirements."""
    return not unmet(requirements, "9999")


def _is_in_range(version: str, bounds: str) -> bool:
    """Tell whether a plain release is within plain bounds; False also if either is not plain."""
    if not version.replace(".", "").isdigit():
        return False
    found = [_BOUND.fullmatch(bound) for bound in bounds.split(",") if bound]
    ours = _numbers(version)
    return all(
        bound is not None and (ours >= _numbers(bound[2])) is (bound[1] == ">=") for bound in found
    )


def _numbers(release: str) -> list[int]:
    """Return its numbers without trailing zeros: 1.0 and 1 are one release."""
    return [int(number) for number in re.sub(r"(\.0+)+$", "", release).split(".")]
