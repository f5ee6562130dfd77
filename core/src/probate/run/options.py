"""What is said to `probate run` before the command: the options, and how they are read.

They are read here and not by click, which takes longer to import than most commands take to start.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, final

from probate.errors import ProbateError
from probate.system.spelling import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence


@final
class RunOptions(NamedTuple):
    """Says what to run, and how; the command line without a word is `RunOptions(argv)`."""

    #: The command and its arguments, as execvp(3) takes them; never empty.
    argv: tuple[str, ...]
    #: Seconds that whoever is left gets to stop, from SIGTERM to SIGKILL.
    grace: float = 5.0
    #: When temporary files go: after an abnormal end, or any; "report" leaves all that has a name.
    settle: Literal["crash", "all", "report"] = "crash"
    #: Whether it gets namespaces of its own: user, IPC, PID and mount.
    isolate: bool = False
    #: Whether to look on as it makes things by name, where the kernel allows that.
    observe: Literal["auto", "none"] = "auto"
    #: Whether programs of it may change their user: without root, nobody may look on then.
    allow_setuid: bool = False
    #: Patterns, as of fnmatch(3), of names and paths that are left as they are.
    keep: tuple[str, ...] = ()
    #: Whether to give an account even of nothing, and how.
    report: Literal["text", "json"] | None = None


@final
class Option(NamedTuple):
    """Describes one option, to whoever reads it and to whoever prints the help."""

    #: As it is written, "--grace"; without the dashes, and with low lines, it is the field's name.
    name: str
    help: str
    #: What stands for its value in the help; empty where it takes none.
    metavar: str = ""
    #: What it takes; empty for anything.
    choices: tuple[str, ...] = ()
    may_repeat: bool = False

    @property
    def field(self) -> str:
        """The field of `RunOptions` that it sets."""
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value."""
        return not self.metavar and not self.choices


OPTIONS: Final = (
    Option("--grace", "Seconds that whoever is left gets to stop; 5 if not said.", "SECONDS"),
    Option(
        "--settle",
        "When temporary files go: after an abnormal end (crash, the default), after any (all). "
        "With report, what has a name is left, and reported.",
        choices=("crash", "all", "report"),
    ),
    Option(
        "--isolate",
        "Run it in namespaces of its own: processes, IPC, /dev/shm. Files are shared with all.",
    ),
    Option(
        "--observe",
        "Whether to look on as things are made by name: where it can be had (auto, the default), "
        "or not (none).",
        choices=("auto", "none"),
    ),
    Option(
        "--allow-setuid",
        "Let sudo and the like work for an ordinary user, at the price of not looking on.",
    ),
    Option("--keep", "Leave what is called so; may be said more than once.", "GLOB", (), True),
    Option("--report", "Account for it even if nothing was left.", choices=("text", "json")),
)


class RunUsageError(ProbateError):
    """Raised when what is said to `probate run` cannot be understood; nothing is started then."""


@final
class HelpAskedError(RunUsageError):
    """Raised when there is a --help among the options, which the command line then prints."""


def parse(arguments: Sequence[str]) -> RunOptions:
    """Read what stands behind `probate run`: options, then the command, with or without `--`.

    As env(1) and timeout(1), it takes the first word that is no option for the command, whose own
    options follow it. Raises RunUsageError, and HelpAskedError for --help.
    """
    found: dict[str, Any] = {}
    keep: list[str] = []
    words = iter(range(len(arguments)))
    start = len(arguments)
    for at in words:
        word = arguments[at]
        if word == "--" or word == "-" or not word.startswith("-"):
            start = at + (word == "--")
            break
        if word in {"-h", "--help"}:
            raise HelpAskedError("help was asked for")
        name, has_value, value = word.partition("=")
        option = _option(name)
        if option.is_flag:
            if has_value:
                raise RunUsageError(f"{name} takes no value")
            found[option.field] = True
            continue
        if not has_value:
            following = next(words, None)
            if following is None:
                raise RunUsageError(f"{name} takes a value: {_takes(option)}")
            value = arguments[following]
        if option.choices and value not in option.choices:
            raise RunUsageError(f"{name} takes {_takes(option)}, not {value!r}")
        if option.may_repeat:
            keep.append(value)
        else:
            found[option.field] = _seconds(name, value) if option.metavar == "SECONDS" else value
    argv = tuple(arguments[start:])
    if not argv:
        raise RunUsageError("there is no command to run: probate run [OPTIONS] -- COMMAND...")
    return RunOptions(argv, keep=tuple(keep), **found)


def _option(name: str) -> Option:
    for option in OPTIONS:
        if option.name == name:
            return option
    meant = nearest(name, [option.name for option in OPTIONS])
    hint = f"; did you mean {meant}?" if meant else ""
    raise RunUsageError(f"no such option: {name}{hint}")


def _takes(option: Option) -> str:
    *others, last = option.choices or (option.metavar,)
    return f"{', '.join(others)} or {last}" if others else last


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise RunUsageError(f"{name} takes seconds, 0 or more, not {value!r}")
    return seconds
