"""Settings: from the environment, `probate.toml`, or `[tool.probate]` of `pyproject.toml`.

They take precedence in this order, after what is given by hand. Both files are looked for in the
working directory. They are read when a `Settings` is made, not before; variables by
pydantic-settings (extra `settings`), which is imported if there are any: that takes long.
"""

from __future__ import annotations

import os
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Self, final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from probate.errors import ProbateError, UnknownKindError
from probate.models import KindLimits, ResourceLimits, Seconds
from probate.orchestrator import DEFAULT_DEADLINE, DEFAULT_GRACE
from probate.plugins.tracing import trace_target
from probate.system.spelling import nearest
from probate.system.trustedfile import read_judged

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    Location = tuple[int | str, ...]

__all__ = ["Settings", "SettingsError", "SettingsWarning", "split_kinds"]

_PREFIX: Final = "PROBATE_"

#: Variables of that prefix that are no settings: the mark of a tree of OS processes, and what
#: makes the tests of this repository more thorough.
MARKS: Final = frozenset(
    {"PROBATE_TREE", "PROBATE_RUN", "PROBATE_KEEPER", "PROBATE_CHAOS", "PROBATE_STATE"}
)

#: The files, and the table of ours in each.
_FILES: Final[dict[str, tuple[str, ...]]] = {
    "probate.toml": (),
    "pyproject.toml": ("tool", "probate"),
}

#: Bytes that such a file has at most; tomllib takes seconds for some megabytes.
_LARGEST: Final = 1 << 20

#: Tables within tables that settings have at most: limits, by_kind, a kind.
_DEPTH: Final = 3

#: What no kind has in its name.
_JSON: Final = frozenset("[]{}\"'")

#: What pydantic says of an unknown setting.
_EXTRA: Final = "Extra inputs are not permitted"


class SettingsWarning(UserWarning):
    """Warns of what looks like a setting and is ignored: an unknown variable, a file of others."""


@final
class SettingsError(ProbateError, ValidationError):
    """Raised for settings that are wrong or unknown, each with the file or variable it is from.

    Made when a `Settings` is. It is a pydantic.ValidationError, too: `errors()` has them one by
    one.
    """

    def __str__(self) -> str:
        """Say all of it in a line."""
        return "; ".join(
            f"{_dotted(each['loc'])}: {each['msg']}" if each["loc"] else each["msg"]
            for each in self.errors()
        )


def split_kinds(text: str) -> tuple[str, ...]:
    """Split a list of kinds, separated by commas."""
    return tuple(kind.strip() for kind in text.split(",") if kind.strip())


@final
class Settings(BaseModel):
    """Reads what can be set from outside a program: each by `PROBATE_` and its name in capitals.

    For `ProcessManagerBuilder.with_settings`, where whoever runs a program is to configure it.
    Raises SettingsError, with every setting that is wrong or, in a file, unknown. Warns
    (SettingsWarning) of unknown variables, and of files that it ignores because others than this
    user and root may have written them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Kinds that are never loaded, or even imported. In the environment, separated by commas.
    disable: tuple[str, ...] = ()
    #: Priorities by kind, in the place of what their plugins say. In the environment, JSON.
    priorities: dict[str, int] = Field(default_factory=dict)
    #: Seconds that users of resources get to stop.
    grace: Seconds = DEFAULT_GRACE
    #: Seconds after which a hook that hangs is left; in the environment, null for never.
    deadline: Seconds | None = DEFAULT_DEADLINE
    #: What a process may own. In the environment, JSON.
    limits: ResourceLimits | None = None
    #: Whether what outlives a host by its name is noted, to be given back should the host die.
    journal: bool = True
    #: Whether every hook call is written to standard error; or the file that it is appended to.
    trace: Annotated[bool | str, PlainValidator(trace_target)] = False

    _sources: tuple[_Source, ...] = PrivateAttr(())

    if not TYPE_CHECKING:
        # Checkers know the arguments by the fields.

        def __init__(self, **given: Any) -> None:
            ignored: list[str] = []
            sources = [_Source(given), _environment(type(self), ignored), *_files(ignored)]
            for problem in ignored:
                warnings.warn(problem, SettingsWarning, stacklevel=2)
            values: dict[str, Any] = {}
            for source in reversed(sources):
                _merge(values, source.values)
            problems = [
                {
                    "type": "extra_forbidden",
                    "loc": (name,),
                    "msg": _EXTRA,
                    "input": values.pop(name),
                }
                for name in sorted(values.keys() - type(self).model_fields)
            ]
            try:
                super().__init__(**values)
            except ValidationError as error:
                problems += error.errors()
            if problems:
                raise _explained(problems, sources) from None
            self._sources = tuple(sources)

    def check_kinds(self, known: Collection[str]) -> None:
        """Check that every kind that is named in a setting is one of these.

        Raises UnknownKindError, which says where it is named: it would silently do nothing.
        """
        by_kind = self.limits.by_kind if self.limits else {}
        for setting, kinds in (
            (("disable",), self.disable),
            (("priorities",), self.priorities),
            (("limits", "by_kind"), by_kind),
        ):
            for kind in kinds:
                if kind in known:
                    continue
                place = (*setting, kind) if isinstance(kinds, Mapping) else setting
                origin = _origin(place, self._sources)
                where = f"named in {_dotted(setting)}" + (f" by {origin}" if origin else "")
                is_json = bool(set(kind) & _JSON)
                why = "a list of kinds is separated by commas, and is no JSON" if is_json else ""
                raise UnknownKindError(kind, sorted(known), why, where)

    def check_installed(self) -> None:
        """Check kinds as `check_kinds` does, against those that are installed.

        Looks what is installed only if any is named: that takes some milliseconds.
        """
        from probate.plugins import discovery

        if self.disable or self.priorities or self.limits is not None:
            self.check_kinds({each.kind for each in discovery.scan()})

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if (
            "grace" in self.model_fields_set
            and self.deadline is not None
            and self.grace > self.deadline
        ):
            raise ValueError(
                f"a grace of {self.grace} seconds is never reached: the deadline is "
                f"{self.deadline}, and counts from the same moment"
            )
        return self

    @field_validator("disable", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_kinds(value) if isinstance(value, str) else value


# -- where settings come from --------------------------------------------------


@final
class _Source(NamedTuple):
    """Settings that come from one place."""

    values: Mapping[str, Any]
    #: The file; empty for what is given by hand.
    path: str = ""
    #: The variable by setting, for those of the environment.
    variables: Mapping[str, str] = {}

    def name(self, setting: int | str) -> str:
        """Name the file or the variable that a setting is from."""
        return self.variables.get(str(setting), self.path)


def _environment(settings: type[Settings], ignored: list[str]) -> _Source:
    known = {f"{_PREFIX}{name.upper()}": name for name in settings.model_fields}
    variables: dict[str, str] = {}
    for variable in os.environ:
        # As pydantic-settings, whatever the case.
        if (name := variable.upper()) in known:
            variables[known[name]] = variable
        elif name.startswith(_PREFIX) and name not in MARKS:
            ignored.append(
                f"{variable} is no setting, and ignored: {_nearest(name, known, _PREFIX)}"
            )
    return _Source(_decoded(settings) if variables else {}, variables=variables)


def _decoded(settings: type[Settings]) -> dict[str, Any]:
    """The settings that there are variables for."""
    try:
        from pydantic_settings import EnvSettingsSource
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"settings from the environment need {error.name}: pip install 'probate[settings]'",
            name=error.name,
        ) from error

    class Source(EnvSettingsSource):
        """What is no JSON is passed on, and refused under the setting's name."""

        def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
            if field_name == "disable":
                return value
            try:
                return super().decode_complex_value(field_name, field, value)
            except (ValueError, RecursionError):
                return value

    return Source(settings, env_prefix=_PREFIX, env_parse_none_str="null")()  # type: ignore[arg-type]  # all it asks for is fields


def _files(ignored: list[str]) -> Iterator[_Source]:
    for path, table in _FILES.items():
        try:
            found = read_judged(path, _LARGEST)
            if found is None:
                continue
            if not found.distrust:
                yield _Source(_table_in(found.content or b"", table), path=_full(path))
            # Most that are called pyproject.toml set nothing of ours.
            elif not table or found.content is None or b"probate" in found.content:
                ignored.append(f"{_full(path)} is ignored: {found.distrust}")
        except OSError as error:
            raise _unreadable(path, error.strerror or str(error)) from error
        except (ValueError, RecursionError) as error:
            raise _unreadable(path, str(error)) from error


def _table_in(content: bytes, names: tuple[str, ...]) -> dict[str, Any]:
    """The table of these names. Raises ValueError for what is no TOML, RecursionError."""
    # Some editors begin a file with a byte order mark.
    table: dict[str, Any] = tomllib.loads(content.decode("utf-8-sig"))
    for name in names:
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise ValueError(f"{_dotted(names)} is no table")  # noqa: TRY004  as for all that is no TOML
    return table


def _full(path: str) -> str:
    return str(Path(path).absolute())


def _merge(values: dict[str, Any], newer: Mapping[str, Any], depth: int = _DEPTH) -> None:
    """Put newer values in the place of others; tables are merged."""
    for name, value in newer.items():
        older = values.get(name)
        if depth and isinstance(value, dict) and isinstance(older, dict):
            values[name] = merged = dict(older)
            _merge(merged, value, depth - 1)
        else:
            values[name] = value


# -- what is wrong with them ---------------------------------------------------


def _unreadable(path: str, why: str) -> SettingsError:
    return _error([("settings_file", (), f"{_full(path)} cannot be read: {why}", path)])


def _explained(problems: Sequence[Any], sources: Sequence[_Source]) -> SettingsError:
    """Say of each problem where the setting is from and, if it is unknown, what is known."""
    explained = []
    for each in problems:
        location, message = each["loc"], each["msg"].removeprefix("Value error, ")
        # Those of no one setting are of these two together.
        places = [location] if location else [("grace",), ("deadline",)]
        origins = dict.fromkeys(filter(None, (_origin(place, sources) for place in places)))
        hints = [", ".join(origins)] if origins else []
        if each["type"] == "extra_forbidden":
            hints.append(_nearest(str(location[-1]), _names_in(location[:-1])))
        if hints:
            message += f" ({'; '.join(hints)})"
        explained.append((each["type"], location, message, each["input"]))
    return _error(explained)


def _error(problems: Sequence[tuple[str, Location, str, object]]) -> SettingsError:
    return SettingsError.from_exception_data(
        "settings",
        [
            InitErrorDetails(type=PydanticCustomError(kind, message), loc=location, input=value)
            for kind, location, message, value in problems
        ],
    )


def _origin(location: Location, sources: Sequence[_Source]) -> str:
    """Name the first source that has a setting; empty if it is given by hand, or by none."""
    for source in sources:
        value: Any = source.values
        for name in location:
            if not isinstance(value, Mapping):
                break
            if name not in value:
                break
            value = value[name]
        else:
            return source.name(location[0])
    return ""


def _names_in(location: Location) -> list[str]:
    """The names that are known in a table of settings."""
    models: dict[int, type[BaseModel]] = {0: Settings, 1: ResourceLimits, 3: KindLimits}
    return list(models[len(location)].model_fields)


def _nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    """Say which of the known names is meant, beyond the prefix that all have; or list them."""
    ends = {each.removeprefix(prefix): each for each in known}
    end = name.removeprefix(prefix)
    # First what it goes on after, as where others separate names by two lines.
    found = [each for each in ends if end.startswith(each)]
    near = found[0] if found else nearest(end, ends)
    return f"did you mean {ends[near]}?" if near else f"known are {', '.join(known)}"


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))
