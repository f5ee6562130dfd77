"""Supervisors that the machine has not: into a venv and a folder, and nothing is installed.

What cannot be had is absent, and said to be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
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

#: Seconds for one package, or for all of the venv.
_PATIENCE: Final = 90


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
    peers = Peers(folder / "litter-venv", folder / "litter-root")
    _fill_venv(peers.venv, repository)
    packages = folder / "litter-packages"
    path = peers.environment()["PATH"]
    for package, program in _PACKAGES.items():
        if shutil.which(program, path=path) is None:
            _unpack(package, packages, peers.unpacked)
    return peers


def _fill_venv(venv: Path, repository: Path) -> None:
    done = venv / ".installed"
    if done.exists():
        return
    pip = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    constraints = ["-c", str(repository / "constraints.txt")]
    steps = (
        [sys.executable, "-m", "venv", str(venv)],
        [*pip, "pip>=25.1"],
        [*pip, *constraints, "--group", f"{repository}/pyproject.toml:litter"],
    )
    if all(_has_done(step, cwd=repository) for step in steps):
        done.touch()


def _unpack(package: str, packages: Path, root: Path) -> None:
    """Fetch a package and what it needs that is not installed, and unpack them to a folder."""
    (packages / "partial").mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "install", "--download-only", "--yes", "-qq", "--no-install-recommends"]
    # Nothing is installed: nobody is kept from installing meanwhile.
    options = ["-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={packages.absolute()}"]
    before = set(packages.glob("*.deb"))
    if _has_done([*command, *options, package]):
        for file in set(packages.glob("*.deb")) - before:
            root.mkdir(exist_ok=True)
            _has_done(["dpkg", "-x", str(file), str(root)])


def _has_done(command: list[str], cwd: Path | None = None) -> bool:
    try:
        subprocess.run(command, check=True, cwd=cwd, timeout=_PATIENCE, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"could not be had: {error}", file=sys.stderr)  # noqa: T201  for whoever looks on
        return False
    return True


def _said(command: list[str]) -> list[str]:
    try:
        return subprocess.check_output(command, text=True, timeout=_PATIENCE).splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
