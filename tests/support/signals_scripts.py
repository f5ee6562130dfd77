"""Scripts in an interpreter of their own, for signals that may end it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

_PRELUDE = """
import faulthandler, os, signal, sys, threading, time
from probate import ProcessManager, ResourceOrchestrator
from probate_signals import SignalResource

orchestrator = ResourceOrchestrator().register(SignalResource(), "signals")
manager = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0).build()
signals = orchestrator["signals"].manager
process = manager.create_process("script")


def say(*words):
    print(*words, flush=True)


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
"""


def run_script(source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script, after a prelude that makes `manager`, `signals` and `process`."""
    return subprocess.run(
        [sys.executable, *options, "-c", _PRELUDE + textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
