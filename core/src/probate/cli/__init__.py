"""The `probate` command.

app.py       the command line (click)
check.py     `probate plugins --check`
lack.py      what there is not enough of, and how to mend that
listing.py   `probate plugins`
newplugin.py `probate new-plugin`, which copies what is in template/
output.py    tables: rich at a terminal, columns of plain text elsewhere
ps.py        `probate ps`
run.py       `probate run`, without click
sweep.py     `probate sweep`
trace.py     `probate trace`
demo/        `probate demo`
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from importlib.util import find_spec
from typing import Final

#: What the extra `cli` brings.
_LIBRARIES: Final = ("click", "pydantic_settings", "rich")


def main() -> None:
    """Run the command line, and exit.

    An error is one line on standard error: exit 2 for wrong usage and for a missing extra, 1 for
    what went wrong, 130 when interrupted.
    """
    _open_standard_streams()
    try:
        code, complaint = _run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code, complaint = 130, "interrupted"
    except OSError as error:
        # Python would complain as well when it flushes once more at its end (Python's
        # documentation of `signal`, "Note on SIGPIPE"). A closed pipe has seen enough.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code, complaint = 1, "" if isinstance(error, BrokenPipeError) else str(error)
    except (MemoryError, ImportError, SystemError) as error:
        # All three come of want of memory or descriptors, where modules are imported.
        code, complaint = 1, f"{type(error).__name__}: {error}"
        if "ulimit" not in complaint:
            complaint += "; is there memory, and are there descriptors? (`ulimit -v`, `ulimit -n`)"
    if complaint:
        from probate.cli.output import printable

        print(f"probate: {printable(' '.join(complaint.split()))}", file=sys.stderr)  # noqa: T201  it is a command's output
    sys.exit(code)


def _open_standard_streams() -> None:
    """Open what whoever started us has closed: what is opened next would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  until the end


def _run() -> tuple[int, str]:
    """Return the exit code, and what to complain of; nothing if all is well."""
    if sys.argv[1:2] == ["run"]:
        # Without looking for garbage, of which what is imported makes none: the command waits for
        # that, and at the end, whoever has called.
        gc.disable()
        from probate.cli.run import HELP, run_command

        if (code := run_command(sys.argv[2:])) != HELP:
            gc.freeze()
            return code, ""
    if "demo" in sys.argv[1:]:
        from probate.cli.lack import prepare_address_space

        # Before anything else is imported, which takes much of it.
        prepare_address_space()
    missing = next((name for name in _LIBRARIES if find_spec(name) is None), None)
    if missing is not None:
        return 2, f"the command line needs {missing}: pip install 'probate[cli]'"
    if sys.argv[1:] in (["plugins"], ["plugins", "--json"]):
        # Without looking for garbage, of which modules that are imported make none.
        gc.disable()
        from probate.cli.listing import is_anything_set, list_plugins

        if not is_anything_set():
            # Without click, which takes as long to import as half of the kinds.
            return list_plugins(as_json="--json" in sys.argv), ""
    import click

    from probate.cli.app import app

    try:
        return app.main(prog_name="probate", standalone_mode=False) or 0, ""
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "probate"
        return error.exit_code, f"{error.format_message()} (see {command} --help)"
    except click.ClickException as error:
        return error.exit_code, error.format_message()
    except click.Abort:
        return 130, "interrupted"
    except SystemExit as error:
        # What click makes of a closed pipe.
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        return int(error.code or 0), ""
