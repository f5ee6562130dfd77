"""The suite on each Python that can be had here; `nox -s tests-3.13` runs one.

The Makefile installs, so that what it pins is what is tested; nox makes the venvs.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Run `make test` there; what follows `--` is passed on to make, as in `-- WORKERS=2`."""
    folder = Path(session.virtualenv.location)
    (folder / ".created").touch()
    session.run("make", "test", f"VENV={folder}", *session.posargs, external=True)
