"""Settings: from the environment, `probate.toml`, or `[tool.probate]` of `pyproject.toml`.

They take precedence in this order, after what is given by hand. Both files are looked for in the
working directory. pydantic-settings (extra `settings`) reads them when a `Settings` is made, not
before.
"""

from __future__ import annotations

from typing import Annotated, Self, final

from pydantic import Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from probate.models import ResourceLimits, Seconds
from probate.orchestrator import DEFAULT_DEADLINE, DEFAULT_GRACE


def split_kinds(text: str) -> tuple[str, ...]:
    """Split a list of kinds, separated by commas."""
    return tuple(kind.strip() for kind in text.split(",") if kind.strip())


@final
class Settings(BaseSettings):
    """Reads what can be set from outside a program: each by `PROBATE_` and its name in capitals.

    For `ProcessManagerBuilder.with_settings`, where whoever runs a program is to configure it.
    Raises pydantic.ValidationError, with every setting that is wrong or, in a file, unknown.
    """

    model_config = SettingsConfigDict(
        env_prefix="PROBATE_",
        toml_file="probate.toml",
        pyproject_toml_table_header=("tool", "probate"),
        extra="forbid",
        frozen=True,
    )

    #: Kinds that are never loaded, or even imported. In the environment, separated by commas.
    disable: Annotated[tuple[str, ...], NoDecode] = ()
    #: Priorities by kind, in the place of what their plugins say. In the environment, JSON.
    priorities: dict[str, int] = Field(default_factory=dict)
    #: Seconds that users of resources get to stop.
    grace: Seconds = DEFAULT_GRACE
    #: Seconds after which a hook that hangs is left; null, in JSON, for never.
    deadline: Seconds | None = DEFAULT_DEADLINE
    #: What a process may own. In the environment, JSON.
    limits: ResourceLimits | None = None
    #: Whether the `probate` command writes every hook call to standard error.
    trace: bool = False

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the two files; leave out .env and secret files, which other programs use."""
        del dotenv_settings, file_secret_settings
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls),
            PyprojectTomlConfigSettingsSource(settings_cls),
        )
