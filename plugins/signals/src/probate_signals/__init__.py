"""Probate's kind `signals`.

resource.py     SignalResource: the kind as the orchestrator has it
manager.py      SignalManager: registers, blocks and sends for processes
entries.py      what a process can own: handlers, blocked signals, pending signals
signums.py      signal numbers and handlers, checked before anything is acquired
dispatch.py     one signal, its OS-level handler, and whom it is delivered to
disposition.py  what a signal did before us, kept so that it can be put back
sigaction.py    the kernel's side of a disposition
delivery.py     calling handlers so that one's failure is not the others'
mainthread.py   asks the main thread for what it alone may do
"""

from __future__ import annotations

from probate_signals.manager import SignalManager
from probate_signals.resource import SignalResource

__all__ = ["SignalManager", "SignalResource"]
