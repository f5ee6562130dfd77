"""The repository's documents, and the code blocks in them."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def code_blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    text = path.read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def third_party_plugin(folder: Path) -> Path:
    """Write the README's third-party plugin as a distribution of its own; return its folder."""
    readme = REPOSITORY / "README.md"
    (folder / "pyproject.toml").write_text(code_blocks(readme, "toml")[0])
    [plugin] = [block for block in code_blocks(readme, "python") if "def leases()" in block]
    (folder / "acme_leases.py").write_text(plugin)
    return folder


def named_plugin(folder: Path) -> Path:
    """Write the kind of CONTRIBUTING.md whose things have names, as the README's; the folder."""
    metadata = code_blocks(REPOSITORY / "README.md", "toml")[0]
    metadata = metadata.replace("acme_leases:leases", "acme_locks:LockResource")
    metadata = metadata.replace("leases", "locks")
    (folder / "pyproject.toml").write_text(metadata)
    blocks = code_blocks(REPOSITORY / "CONTRIBUTING.md", "python")
    [plugin] = [block for block in blocks if "class LockResource" in block]
    (folder / "acme_locks.py").write_text(plugin)
    return folder
