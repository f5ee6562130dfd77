"""Modules that are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest
from core_scripts import run_script

from probate.system.lazy import lazy_module

#: A host as most are: what it has loaded before anything can be owned.
HOST = """
import sys
from probate import ResourceOrchestrator
ResourceOrchestrator().discover(only=[])
print(sorted({"asyncio", "probate.models", "probate.termination.steps"} & set(sys.modules)))
"""


def test_a_module_is_imported_at_its_first_use() -> None:
    """And not before."""
    script = run_script(
        "import sys; from probate.system.lazy import lazy_module as lazy; "
        "colours = lazy('colorsys'); "
        "before = 'colorsys' in sys.modules; colours.rgb_to_hsv(0, 0, 0); "
        "print(before, 'colorsys' in sys.modules)"
    )

    assert (script.stdout, script.stderr) == ("False True\n", "")


def test_it_gives_what_the_module_has() -> None:
    """The same objects, the second time too; submodules among them."""
    late = lazy_module("subprocess")

    assert late.Popen is late.Popen is subprocess.Popen
    assert lazy_module("os").path is sys.modules["os.path"]


def test_what_is_not_there_is_an_error_as_ever() -> None:
    """ImportError for a module, AttributeError for a name."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        lazy_module("no_such_module_here").anything  # noqa: B018  the access is the test
    with pytest.raises(AttributeError, match="no_such_name"):
        lazy_module("os").no_such_name  # noqa: B018  as above


def test_a_host_has_loaded_what_ends_a_process_before_anything_can_be_owned() -> None:
    """By the time of a cleanup there may be no descriptor left to import it with."""
    script = run_script(HOST)

    assert script.stdout == "['asyncio', 'probate.models', 'probate.termination.steps']\n"
