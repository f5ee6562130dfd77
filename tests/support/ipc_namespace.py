"""The kernel's limits on IPC, lowered in a namespace of their own (ipc_namespaces(7))."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

_PRELUDE = """
import ctypes, json, os, sys

assert ctypes.CDLL(None).unshare(0x08000000) == 0  # CLONE_NEWIPC

def set_limit(name, value):
    with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
        file.write(value)

told = {}

def tell(case, call):
    try:
        call()
    except Exception as error:
        told[case] = [type(error).__name__, error.errno, str(error)]
"""


def errors_in_namespace(script: str) -> dict[str, tuple[str, int, str]]:
    """Run a script, as root, in an IPC namespace of its own, whose `set_limit` harms nobody.

    Returns class, number and text of what each of its `tell(case, call)` raised.
    """
    source = f"{_PRELUDE}\n{textwrap.dedent(script)}\nprint(json.dumps(told))"
    ran = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=50, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return {case: tuple(error) for case, error in json.loads(ran.stdout).items()}
