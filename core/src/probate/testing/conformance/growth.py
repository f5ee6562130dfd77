"""What this OS process holds more than before, by the kernel's word."""

from __future__ import annotations

import gc
import time
from typing import Final, final

from probate.testing.witness import KernelView

#: Seconds for which whatever goes on beside a check may come to its end.
_PATIENCE: Final = 2.0
_PAUSE: Final = 0.005


@final
class Growth:
    """Looks at what this process holds, once that has come to rest; and at what is more later."""

    def __init__(self) -> None:
        gc.collect()
        over = time.monotonic() + _PATIENCE
        self._before, later = KernelView.take(), KernelView.take()
        while self._before.differences(later) and time.monotonic() < over:
            time.sleep(_PAUSE)
            self._before, later = later, KernelView.take()

    def found(self) -> list[str]:
        """Return a line for each thing more, or changed, that stays so."""
        over = time.monotonic() + _PATIENCE
        while lines := [line for line in self._changes() if not _is_less(line)]:
            if time.monotonic() > over:
                break
            gc.collect()
            time.sleep(_PAUSE)
        return lines

    def _changes(self) -> list[str]:
        return self._before.differences(KernelView.take())


def _is_less(line: str) -> bool:
    """Tell whether something has gone, as what others use may at any time."""
    return line.endswith(" is closed") or " mapping less: " in line
