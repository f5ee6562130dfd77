"""Supervisors that the machine has not: into a venv and a folder, and nothing is installed.

What cannot be had is absent, and said to be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from typing import TYPE_CHECKING, Final, NamedTuple, final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Packages of Debian, and the program of each that is wanted.
_PACKAGES: Final[Mapping[str, str]] = {
    "tini": "tini",
    "dumb-init": "dumb-init",
    "catatonit": "catatonit",
    "s6": "s6-supervise",
    "runit": "runsv",
    "daemontools": "supervise",
    "parallel": "parallel",
    "bubblewrap": "bwrap",
    "firejail": "firejail",
}

#: Seconds for all of it, of which the last step gets some at least.
_PATIENCE: Final = 140.0
_LEAST: Final = 5.0

#: In the venv, when all is installed.
_DONE: Final = ".installed"


@final
class Peers(NamedTuple):
    """Where they are."""

    venv: Path
    unpacked: Path

    def environment(self) -> dict[str, str]:
        """The environment in which they are found, the machine's own first."""
        folders = [self.unpacked / name for name in ("usr/bin", "usr/sbin", "bin", "sbin")]
        libraries = self.unpacked / "usr/lib" / str(sysconfig.get_config_var("MULTIARCH"))
        return {
            **os.environ,
            "PATH": ":".join([os.environ.get("PATH", os.defpath), *map(str, folders)]),
            "LD_LIBRARY_PATH": f"{libraries}:{self.unpacked}/lib/{libraries.name}",
        }

    def versions(self) -> dict[str, str]:
        """The version of each that there is, by the name of its package."""
        return {**self._versions_in_venv(), **self._versions_of_packages()}

    def _versions_in_venv(self) -> dict[str, str]:
        code = (
            "from importlib.metadata import distributions as all\n"
            "for each in all(): print(each.name, each.version)"
        )
        lines = _said([str(self.venv / "bin/python"), "-c", code])
        found = dict(line.split() for line in lines)
        wanted = ("supervisor", "circus", "honcho", "python-daemon", "loky")
        return {name: found[name] for name in wanted if name in found}

    def _versions_of_packages(self) -> dict[str, str]:
        files = sorted((self.unpacked.parent / "litter-packages").glob("*.deb"))
        names = (unquote(file.name).split("_") for file in files)
        return {name: version for name, version, _ in names if name in _PACKAGES}


def fetch(folder: Path, repository: Path) -> Peers:
    """Fetch what is not there yet, by pip and apt-get; say on standard error what cannot be had."""
    over = time.monotonic() + _PATIENCE
    peers = Peers(folder / "litter-venv", folder / "litter-root")
    if not (peers.venv / _DONE).exists():
        _fill_venv(peers.venv, repository, over)
    path = peers.environment()["PATH"]
    missing = [
        package for package, name in _PACKAGES.items() if shutil.which(name, path=path) is None
    ]
    if missing:
        _unpack(missing, folder / "litter-packages", peers.unpacked, over)
    return peers


def _fill_venv(venv: Path, repository: Path, over: float) -> None:
    pip = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    constraints = ["-c", str(repository / "constraints.txt")]
    steps = (
        [sys.executable, "-m", "venv", str(venv)],
        [*pip, "pip>=25.1"],
        [*pip, *constraints, "--group", f"{repository}/pyproject.toml:litter"],
    )
    if all(_has_done(step, over) for step in steps):
        (venv / _DONE).touch()


def _unpack(names: list[str], packages: Path, root: Path, over: float) -> None:
    """Fetch packages, and what they need that is not installed, and unpack them to a folder."""
    for folder in (packages / "partial", root):
        folder.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "install", "--download-only", "--yes", "-qq", "--no-install-recommends"]
    # Nothing is installed: nobody is kept from installing meanwhile.
    options = ["-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={packages.absolute()}"]
    for name in names:
        _has_done([*command, *options, name], over)
    for file in packages.glob("*.deb"):
        _has_done(["dpkg", "-x", str(file), str(root)], over)


def _has_done(command: list[str], over: float) -> bool:
    patience = max(_LEAST, over - time.monotonic())
    try:
        subprocess.run(command, check=True, timeout=patience, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"could not be had: {error}", file=sys.stderr)  # noqa: T201  for whoever looks on
        return False
    return True


def _said(command: list[str]) -> list[str]:
    try:
        return subprocess.check_output(command, text=True, timeout=_PATIENCE).splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
