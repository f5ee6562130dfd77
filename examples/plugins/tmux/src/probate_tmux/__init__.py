"""Probate's kind `tmux`: terminal sessions on a tmux server.

manager.py   TmuxManager: makes sessions
server.py    how a server is asked, and a session found again
resource.py  TmuxResource: the kind
"""

from __future__ import annotations

from probate_tmux.manager import TmuxManager
from probate_tmux.resource import TmuxResource
from probate_tmux.server import Session, TmuxError

__all__ = ["Session", "TmuxError", "TmuxManager", "TmuxResource"]
