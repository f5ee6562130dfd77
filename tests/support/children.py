"""Forked children in tests: what they assert counts."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def exit_code_of_fork(child: Callable[[], object]) -> int:
    """Call `child` in a forked child that runs nothing else; 0 if it raised nothing."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            # Neither pytest nor any exit handler may run on in here.
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
